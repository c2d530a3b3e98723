"""From a rejoined chunk to its events: complete frames are counted like whole frames, incomplete ones are masked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from stempy.image import electron_count_frame

import counting
from consumers.counting_step import CountingStep
from consumers.rejoin import JoinedChunk
from producers.simulator import Simulation
from producers.suppression import SuppressionSettings
from producers.suppressor import Suppressor
from service.catalogue import Count
from tests import hostile
from tests.golden.values import GEOMETRY, RECORDS
from topics import chunk, raw
from topics.chunk import NO_FLOOR, Chunk, ChunkHeader
from topics.codec import Codec, compress
from topics.event import Events
from topics.geometry import ScanGeometry
from topics.marker import PartitionPublished
from topics.scan_log import AutoThreshold, CountSettings, ThresholdsFound

FRAMES = 6  # of the only chunk
SCAN = ScanGeometry(width=3, height=2, frames_per_chunk=FRAMES, partitions=1)
SETTINGS = CountSettings(background=40, xray=2000)
DARK = np.linspace(8, 16, 576 * 576, dtype=np.float32).reshape(576, 576)
GAIN = np.linspace(0.5, 2, 576 * 576, dtype=np.float32).reshape(576, 576)
REFERENCES = {"d" * 64: DARK, "f" * 64: GAIN}


@pytest.fixture(scope="module")
def frames() -> NDArray[np.uint16]:
    """Simulated frames; electrons hit the borders of sectors too."""
    pixels, _ = Simulation(3, 2, electrons=400, xrays=1, seed=5).frames(0, FRAMES)
    return pixels


@pytest.fixture(scope="module")
def electrons(frames: NDArray[np.uint16]) -> list[list[int]]:
    """Of each frame, as stempy counts them."""
    counted = [electron_count_frame(frame, background_threshold=40, xray_threshold=2000) for frame in frames]
    found = [frame.data[0, 0].tolist() for frame in counted]
    assert min(map(len, found)) > 100
    return found


@pytest.fixture(scope="module")
def step() -> CountingStep:
    return CountingStep(REFERENCES.__getitem__)


def sector_of(
    frames: NDArray[np.uint16],
    sector: int,
    present: NDArray[np.bool_],
    geometry: ScanGeometry = SCAN,
    suppressor: Suppressor | None = None,
) -> Chunk | None:
    """A sector's chunk as the counter gets it; None if no frame is present."""
    if not present.any():
        return None
    pixels = np.ascontiguousarray(frames[present, 144 * sector : 144 * sector + 144])
    suppressed = suppressor.compress(pixels) if suppressor else None
    header = ChunkHeader(
        sector=sector,
        ordinal=17,
        epoch=15 + sector,
        geometry=geometry,
        chunk_index=geometry.chunks - 1,
        present=present,
        published=PartitionPublished(last_chunk=geometry.chunks - 1),
        first_frame_ns=0,
        codec=Codec.ZERO_SUPPRESSED if suppressed else Codec.BLOSC2,
        floor=suppressed[1] if suppressed else NO_FLOOR,
    )
    payload = suppressed[0] if suppressed else compress(pixels)
    decoded = raw.decode(chunk.encode(header, payload))
    assert isinstance(decoded, Chunk)
    return decoded


def joined(frames: NDArray[np.uint16], present: NDArray[np.bool_]) -> JoinedChunk:
    """``present`` is (4, frames) bool."""
    return JoinedChunk(17, SCAN, 0, tuple(sector_of(frames, s, present[s]) for s in range(4)))


def rows(events: Events) -> list[list[int]]:
    return [events.indices[a:b].tolist() for a, b in zip(events.offsets, events.offsets[1:], strict=False)]


def mask(present: NDArray[np.bool_]) -> list[int]:
    return [sum(1 << s for s in range(4) if not present[s, f]) for f in range(present.shape[1])]


@pytest.mark.parametrize("engine", counting.ENGINES)
def test_a_complete_chunk_is_counted_as_stempy_counts_its_frames(
    step: CountingStep, frames: NDArray[np.uint16], electrons: list[list[int]], engine: str
) -> None:
    settings = CountSettings.model_validate({"background": 40, "xray": 2000, "engine": engine})
    events, damaged = step.count(joined(frames, np.ones((4, FRAMES), bool)), Count(22, "live", settings))
    assert rows(events) == electrons
    assert events.missing_sectors.tolist() == [0] * FRAMES
    assert not damaged


@settings(max_examples=30, deadline=None)
@given(present=st.lists(st.lists(st.booleans(), min_size=FRAMES, max_size=FRAMES), min_size=4, max_size=4))
def test_frames_with_all_sectors_are_counted_and_the_others_masked(
    step: CountingStep, frames: NDArray[np.uint16], electrons: list[list[int]], present: list[list[bool]]
) -> None:
    masks = np.array(present) | (np.arange(FRAMES) % 3 == 1)  # so that some frames are complete
    events, damaged = step.count(joined(frames, masks), Count(22, "live", SETTINGS))
    complete = masks.all(axis=0)
    assert rows(events) == [row if complete[f] else [] for f, row in enumerate(electrons)]
    assert events.missing_sectors.tolist() == mask(masks)
    assert not damaged


@pytest.mark.parametrize("lost", range(4))
def test_without_a_sector_no_frame_is_counted(step: CountingStep, frames: NDArray[np.uint16], lost: int) -> None:
    present = np.ones((4, FRAMES), bool)
    present[lost] = False
    events, damaged = step.count(joined(frames, present), Count(22, "live", SETTINGS))
    assert rows(events) == [[]] * FRAMES
    assert events.missing_sectors.tolist() == [1 << lost] * FRAMES
    assert not damaged


def test_the_header_says_what_was_counted_and_from_what(step: CountingStep, frames: NDArray[np.uint16]) -> None:
    present = np.ones((4, FRAMES), bool)
    present[2] = False
    one = joined(frames, present)
    header = step.count(one, Count(22, "again", SETTINGS))[0].header
    assert (header.ordinal, header.count, header.count_name, header.chunk_index) == (17, 22, "again", 0)
    assert header.geometry == SCAN
    assert header.epochs == [15, 16, None, 18]
    assert header.payload_bytes == [len(c.payload) if c else None for c in one.sectors]


def test_the_thresholds_are_those_of_the_count(step: CountingStep, frames: NDArray[np.uint16]) -> None:
    settings = CountSettings(background=100.5, xray=250)
    events, _ = step.count(joined(frames, np.ones((4, FRAMES), bool)), Count(22, "live", settings))
    indices, offsets = counting.count_frames(frames, 100.5, 250)
    assert np.array_equal(events.indices, indices)
    assert np.array_equal(events.offsets, offsets)


@pytest.mark.parametrize("name", hostile.chunks_with_unreadable_payload())
def test_a_sector_that_cannot_be_decompressed_counts_as_missing(
    step: CountingStep, frames: NDArray[np.uint16], electrons: list[list[int]], name: str
) -> None:
    lying = raw.decode(hostile.chunks_with_unreadable_payload()[name])  # of sector 0, last chunk of its scan
    assert isinstance(lying, Chunk)
    present = np.array([True, True, True, False, True, True])
    others = [sector_of(frames, s, present, GEOMETRY) for s in (1, 2, 3)]
    events, damaged = step.count(JoinedChunk(17, GEOMETRY, 3, (lying, *others)), Count(22, "live", SETTINGS))
    assert rows(events) == [[]] * 6
    assert events.missing_sectors.tolist() == [1, 1, 1, 15, 1, 1]
    assert len(damaged) == 1
    assert damaged[0].startswith("chunk 3 of sector 0: ")
    # What it left in memory does no harm to the next chunk.
    events, _ = step.count(joined(frames, np.ones((4, FRAMES), bool)), Count(22, "live", SETTINGS))
    assert rows(events) == electrons


def test_a_smaller_chunk_after_a_larger_one_is_counted_from_its_own_pixels(
    step: CountingStep, frames: NDArray[np.uint16], electrons: list[list[int]]
) -> None:
    step.count(joined(frames, np.ones((4, FRAMES), bool)), Count(22, "live", SETTINGS))
    present = np.zeros((4, FRAMES), bool)
    present[:, 4] = True
    events, _ = step.count(joined(frames, present), Count(22, "live", SETTINGS))
    assert rows(events) == [[], [], [], [], electrons[4], []]


def test_references_are_applied_as_stempy_applies_them(step: CountingStep, frames: NDArray[np.uint16]) -> None:
    settings = CountSettings(background=20, xray=2000, dark="d" * 64, gain="f" * 64)
    events, _ = step.count(joined(frames, np.ones((4, FRAMES), bool)), Count(22, "live", settings))
    for i, frame in enumerate(frames):
        expected = electron_count_frame(
            frame, darkreference=DARK, gain=GAIN, background_threshold=20, xray_threshold=2000
        ).data[0, 0]
        assert events.indices[events.offsets[i] : events.offsets[i + 1]].tolist() == expected.tolist()
    plain, _ = step.count(joined(frames, np.ones((4, FRAMES), bool)), Count(22, "live", SETTINGS))
    assert plain.indices.tolist() != events.indices.tolist()


def suppressed(
    frames: NDArray[np.uint16], sectors: tuple[int, ...], settings: SuppressionSettings, present: NDArray[np.bool_]
) -> JoinedChunk:
    """A chunk of which only some sectors are zero-suppressed."""
    parts = (
        sector_of(frames, s, present[s], suppressor=Suppressor(s, settings) if s in sectors else None) for s in range(4)
    )
    return JoinedChunk(17, SCAN, 0, tuple(parts))


@pytest.mark.parametrize("engine", ["fast", "stempy"])
@pytest.mark.parametrize("floor", [20.0, None], ids=["a floor", "auto"])
@pytest.mark.parametrize("sectors", [(0, 1, 2, 3), (1, 3)], ids=["all sectors", "two sectors"])
def test_zero_suppressed_sectors_give_the_electrons_of_full_ones(
    step: CountingStep, frames: NDArray[np.uint16], engine: str, floor: float | None, sectors: tuple[int, ...]
) -> None:
    fields = {"background": 30, "xray": 2000, "engine": engine, "dark": "d" * 64, "gain": "f" * 64}
    count = Count(22, "live", CountSettings.model_validate(fields))
    present = np.ones((4, FRAMES), bool)
    present[1, 2] = present[2, 4] = False
    full, _ = step.count(joined(frames, present), count)
    sent = suppressed(frames, sectors, SuppressionSettings(floor, DARK, GAIN), present)
    events, damaged = step.count(sent, count)
    assert not damaged
    assert rows(events) == rows(full)
    assert sum(map(len, rows(full))) > 100
    assert events.missing_sectors.tolist() == full.missing_sectors.tolist()
    assert full.header.floors is None
    assert events.header.floors is not None
    for sector, found in enumerate(events.header.floors):
        assert found is None if sector not in sectors else 0 < (found or 0) <= 30


def test_a_damaged_zero_suppressed_sector_counts_as_missing(step: CountingStep, frames: NDArray[np.uint16]) -> None:
    sent = suppressed(frames, (0, 1, 2, 3), SuppressionSettings(20.0), np.ones((4, FRAMES), bool))
    first, *others = sent.sectors
    assert first is not None
    cut = Chunk(first.header, first.payload[: len(first.payload) // 2])
    events, damaged = step.count(JoinedChunk(17, SCAN, 0, (cut, *others)), Count(22, "live", SETTINGS))
    assert len(damaged) == 1
    assert events.missing_sectors.tolist() == [0b0001] * FRAMES
    assert len(events.indices) == 0


def test_a_count_with_automatic_thresholds_uses_those_that_were_found(
    step: CountingStep, frames: NDArray[np.uint16]
) -> None:
    fixed, _ = step.count(joined(frames, np.ones((4, FRAMES), bool)), Count(22, "live", SETTINGS))
    found = RECORDS["log1_thresholds_found"].model_copy(update={"background": 40.0, "xray": 2000.0})
    assert isinstance(found, ThresholdsFound)
    automatic = Count(22, "live", CountSettings(auto_threshold=AutoThreshold()), found)
    events, _ = step.count(joined(frames, np.ones((4, FRAMES), bool)), automatic)
    assert events.indices.tolist() == fixed.indices.tolist()
