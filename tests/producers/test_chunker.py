"""Sector frames become chunks: the same ones in whatever order the frames come, and nothing is lost uncounted."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from producers.chunker import Chunker, FilledChunk
from producers.sector_frames import SectorFrames
from topics.geometry import ScanGeometry

Frame = tuple[int, int, int]  # frame number, shift of its position (0: the right one), mark in its pixels
Given = dict[int, dict[int, int]]  # chunk index: frame number: mark


def scan(frames: int = 30, per_chunk: int = 8, width: int = 5, per_position: int = 1) -> ScanGeometry:
    return ScanGeometry(
        width=width,
        height=-(-frames // (width * per_position)),
        frames_per_position=per_position,
        frames_per_chunk=per_chunk,
        partitions=3,
    )


def sector_frames(geometry: ScanGeometry, frames: list[Frame]) -> SectorFrames:
    numbers, shifts, marks = np.array(frames, np.int64).reshape(-1, 3).T
    positions = numbers // geometry.frames_per_position + shifts
    pixels = np.broadcast_to(marks.astype(np.uint16).reshape(-1, 1, 1), (len(frames), 144, 576))
    return SectorFrames(numbers, positions % geometry.width, positions // geometry.width, pixels)


def plain(numbers: list[int]) -> list[Frame]:
    return [(number, 0, number + 1) for number in numbers]


def content(chunk: FilledChunk, geometry: ScanGeometry) -> dict[int, int]:
    """Mark of each frame that is in the chunk; checks that the pixels sent are those."""
    numbers = chunk.index * geometry.frames_per_chunk + np.flatnonzero(chunk.present)
    assert len(chunk.present) == geometry.frames_in_chunk(chunk.index)
    assert chunk.sector_frames.shape == (len(numbers), 144, 576)
    marks = chunk.sector_frames[:, 0, 0]
    assert np.array_equal(chunk.sector_frames[:, 143, 575], marks)
    return dict(zip(numbers.tolist(), marks.tolist(), strict=True))


def chunks_of(chunker: Chunker, geometry: ScanGeometry, batches: list[list[Frame]]) -> Given:
    """Feed the batches, finish, and take the chunks as they close."""
    taken: Given = {}
    for batch in batches:
        for chunk in chunker.add(sector_frames(geometry, batch)):
            take(chunk, taken, geometry)
    for chunk in chunker.finish():
        take(chunk, taken, geometry)
    return taken


def take(chunk: FilledChunk, taken: Given, geometry: ScanGeometry) -> None:
    assert chunk.index > max(taken, default=-1)  # ascending, none twice
    taken[chunk.index] = content(chunk, geometry)


def split(frames: list[Frame], sizes: list[int]) -> list[list[Frame]]:
    """Cut into batches of these sizes, again and again."""
    batches: list[list[Frame]] = []
    at = 0
    while at < len(frames):
        size = sizes[len(batches) % len(sizes)]
        batches.append(frames[at : at + size])
        at += size
    return batches


def whole(geometry: ScanGeometry) -> Given:
    n = geometry.frames_per_chunk
    return {c: {f: f + 1 for f in range(c * n, c * n + geometry.frames_in_chunk(c))} for c in range(geometry.chunks)}


sizes = st.lists(st.integers(1, 9), min_size=1, max_size=4)
geometries = st.builds(
    scan,
    frames=st.integers(1, 40),
    per_chunk=st.integers(1, 12),
    width=st.integers(1, 6),
    per_position=st.integers(1, 3),
)


def test_frames_in_order_make_chunks_as_they_fill() -> None:
    geometry = scan()
    chunker = Chunker(geometry, 0)
    closed = [[c.index for c in chunker.add(sector_frames(geometry, plain([f])))] for f in range(30)]
    assert [f for f, indices in enumerate(closed) if indices] == [7, 15, 23, 29]
    assert not list(chunker.finish())


@settings(max_examples=60, deadline=None)
@given(geometry=geometries, window=st.integers(0, 20), batch_sizes=sizes, seed=st.integers(0, 2**32 - 1))
def test_any_order_within_the_window_gives_the_same_chunks(
    geometry: ScanGeometry, window: int, batch_sizes: list[int], seed: int
) -> None:
    numbers = np.arange(geometry.frames)
    delays = np.random.default_rng(seed).integers(0, window + 1, len(numbers))
    order = np.argsort(numbers + delays, kind="stable").tolist()
    chunker = Chunker(geometry, window)
    assert chunks_of(chunker, geometry, split(plain(order), batch_sizes)) == whole(geometry)
    assert chunker.received == geometry.frames
    assert (chunker.late, chunker.repeated, chunker.refused) == (0, 0, 0)


@settings(max_examples=40, deadline=None)
@given(geometry=geometries, batch_sizes=sizes, seed=st.integers(0, 2**32 - 1))
def test_a_window_as_long_as_the_scan_takes_any_order(
    geometry: ScanGeometry, batch_sizes: list[int], seed: int
) -> None:
    order = np.random.default_rng(seed).permutation(geometry.frames).tolist()
    chunker = Chunker(geometry, geometry.frames)
    assert chunks_of(chunker, geometry, split(plain(order), batch_sizes)) == whole(geometry)


@dataclass
class Model:
    """The same in slow and plain words, frame by frame."""

    geometry: ScanGeometry
    window: int
    chunks: Given = field(default_factory=dict)
    closed: int = 0  # chunks below are closed
    late: int = 0
    repeated: int = 0
    refused: int = 0

    def add(self, batch: list[Frame]) -> None:
        n = self.geometry.frames_per_chunk
        newest = -1
        for number, shift, mark in batch:
            if shift or number >= self.geometry.frames:
                self.refused += 1
                continue
            newest = max(newest, number)
            chunk = self.chunks.setdefault(number // n, {}) if number // n >= self.closed else None
            if chunk is None:
                self.late += 1
            elif number in chunk:
                self.repeated += 1
            else:
                chunk[number] = mark
        while newest >= 0 and self.closed < self.geometry.chunks and self._is_done(self.closed, newest):
            self.closed += 1

    def _is_done(self, c: int, newest: int) -> bool:
        full = len(self.chunks.get(c, {})) == self.geometry.frames_in_chunk(c)
        # A last chunk that is shorter ends where the others do: nothing can come past its end.
        last = (c + 1) * self.geometry.frames_per_chunk - 1
        return full or newest - last >= self.window


@st.composite
def streams(draw: st.DrawFn) -> tuple[ScanGeometry, int, list[list[Frame]]]:
    """A scan and batches with frames missing, repeated, late, past the scan, or at another position."""
    geometry = draw(geometries)
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    numbers = np.arange(geometry.frames)
    if draw(st.booleans()):  # some are missing
        numbers = numbers[random.random(len(numbers)) < 0.8]
    if draw(st.booleans()):  # some come twice
        numbers = np.concatenate([numbers, random.choice(numbers, len(numbers) // 3)]) if len(numbers) else numbers
    if draw(st.booleans()):  # some do not exist
        numbers = np.concatenate([numbers, geometry.frames + random.integers(0, 50, 2)])
    delays = random.integers(0, draw(st.sampled_from([1, 5, 50])), len(numbers))
    order = numbers[np.argsort(numbers + delays, kind="stable")].tolist()
    wrong = draw(st.sampled_from([0, 0.2]))
    frames = [(n, int(random.random() < wrong) * int(random.integers(1, 4)), i + 1) for i, n in enumerate(order)]
    return geometry, draw(st.integers(0, 12)), split(frames, draw(sizes))


def published(chunks: Given) -> int:
    return sum(len(chunk) for chunk in chunks.values())


@settings(max_examples=80, deadline=None)
@given(stream=streams())
def test_whatever_comes_is_published_or_counted_as_the_model_says(
    stream: tuple[ScanGeometry, int, list[list[Frame]]],
) -> None:
    geometry, window, batches = stream
    chunker, model = Chunker(geometry, window), Model(geometry, window)
    for batch in batches:
        model.add(batch)
    found = chunks_of(chunker, geometry, batches)
    assert found == {c: frames for c, frames in model.chunks.items() if frames}
    assert (chunker.late, chunker.repeated, chunker.refused) == (model.late, model.repeated, model.refused)
    assert chunker.received == sum(len(batch) for batch in batches)
    assert chunker.received == published(found) + chunker.repeated + chunker.late + chunker.refused


def test_a_frame_for_a_chunk_that_is_closed_is_late_even_if_it_was_there() -> None:
    geometry = scan()
    chunker = Chunker(geometry, 0)
    found = chunks_of(chunker, geometry, [plain([*range(7), 8]), plain([7, 0])])
    assert found == {0: {f: f + 1 for f in range(7)}, 1: {8: 9}}
    assert (chunker.late, chunker.repeated) == (2, 0)


def test_of_a_frame_that_comes_twice_the_first_is_kept() -> None:
    geometry = scan()
    chunker = Chunker(geometry, 0)
    found = chunks_of(chunker, geometry, [[(0, 0, 5), (0, 0, 6), (1, 0, 7)], [(1, 0, 8), (2, 0, 9)]])
    assert found == {0: {0: 5, 1: 7, 2: 9}}
    assert chunker.repeated == 2


def test_a_chunk_waits_for_the_window_and_no_longer() -> None:
    geometry = scan(40)
    chunker = Chunker(geometry, 4)

    def closed_by(numbers: list[int]) -> list[int]:
        return [chunk.index for chunk in chunker.add(sector_frames(geometry, plain(numbers)))]

    assert closed_by([0, 1, 2, 3, 4, 5, 6]) == []
    assert closed_by([10]) == []  # 3 past the end of the first chunk
    assert closed_by([11]) == [0]  # 4 past it


def test_a_full_chunk_waits_for_those_before_it() -> None:
    geometry = scan()
    chunker = Chunker(geometry, 30)

    def closed_by(numbers: list[int]) -> list[int]:
        return [chunk.index for chunk in chunker.add(sector_frames(geometry, plain(numbers)))]

    assert closed_by([*range(8, 16), *range(7)]) == []
    assert closed_by([7]) == [0, 1]


def test_a_chunk_without_frames_is_not_published() -> None:
    geometry = scan()
    assert list(chunks_of(Chunker(geometry, 0), geometry, [plain([0, 1]), plain([25])])) == [0, 3]
    assert chunks_of(Chunker(geometry, 0), geometry, []) == {}


def test_the_mask_says_which_frames_are_there() -> None:
    geometry = scan()
    chunker = Chunker(geometry, 0)
    list(chunker.add(sector_frames(geometry, plain([24, 26, 27]))))
    [chunk] = chunker.finish()
    assert chunk.present.tolist() == [True, False, True, True, False, False]
    assert chunk.sector_frames[:, 0, 0].tolist() == [25, 27, 28]


def test_a_frame_whose_position_is_not_that_of_its_number_is_refused() -> None:
    geometry = scan(per_position=2)
    chunker = Chunker(geometry, 0)
    numbers = np.array([0, 1, 2, 3, 4, 5])
    x = np.array([0, 1, 1, 1, 2, 7])
    y = np.array([0, 0, 0, 1, 0, 0])
    pixels: NDArray[np.uint16] = np.zeros((6, 144, 576), np.uint16)
    list(chunker.add(SectorFrames(numbers, x, y, pixels)))
    [chunk] = chunker.finish()
    assert np.flatnonzero(chunk.present).tolist() == [0, 2, 4]
    assert chunker.refused == 3


def test_a_row_past_the_last_and_a_column_past_the_last_are_refused() -> None:
    # Position y * width + x would be that of the number.
    geometry = scan(frames=15, width=5)
    chunker = Chunker(geometry, 0)
    pixels: NDArray[np.uint16] = np.zeros((2, 144, 576), np.uint16)
    list(chunker.add(SectorFrames(np.array([15, 7]), np.array([0, 7]), np.array([3, 0]), pixels)))
    assert not list(chunker.finish())
    assert chunker.refused == 2


def test_pixels_of_a_published_chunk_do_not_come_back_in_a_later_one() -> None:
    geometry = scan()
    chunker = Chunker(geometry, 0)
    chunks_taken = [content(c, geometry) for c in chunker.add(sector_frames(geometry, plain(list(range(8)))))]
    chunks_taken += [content(c, geometry) for c in chunker.add(sector_frames(geometry, plain([9, 15])))]
    assert chunks_taken == [{f: f + 1 for f in range(8)}, {9: 10, 15: 16}]


def test_the_time_of_a_chunk_is_that_of_its_first_frame() -> None:
    geometry = scan()
    chunker = Chunker(geometry, 0)
    before = time.time_ns()
    list(chunker.add(sector_frames(geometry, plain([0]))))
    after = time.time_ns()
    list(chunker.add(sector_frames(geometry, plain([1]))))
    [chunk] = chunker.finish()
    assert before <= chunk.first_frame_ns <= after
