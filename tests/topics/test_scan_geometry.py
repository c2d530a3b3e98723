"""How the frames of a scan are numbered, cut into chunks and spread over partitions; the keys made from that."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from topics.geometry import ScanGeometry
from topics.keys import chunk_key, marker_key

SMALL = st.builds(
    ScanGeometry,
    width=st.integers(1, 9),
    height=st.integers(1, 9),
    frames_per_position=st.integers(1, 5),
    frames_per_chunk=st.integers(1, 50),
    partitions=st.integers(1, 7),
)


@given(geometry=SMALL)
def test_every_frame_lies_in_exactly_one_chunk(geometry: ScanGeometry) -> None:
    n = geometry.frames_per_chunk
    frames = [c * n + i for c in range(geometry.chunks) for i in range(geometry.frames_in_chunk(c))]
    assert frames == list(range(geometry.width * geometry.height * geometry.frames_per_position))
    assert geometry.frames == len(frames)


@given(geometry=SMALL)
def test_chunks_go_round_the_partitions(geometry: ScanGeometry) -> None:
    loads = [0] * geometry.partitions
    for c in range(geometry.chunks):
        loads[geometry.partition_of(c)] += 1
    assert max(loads) - min(loads) <= 1
    assert loads == sorted(loads, reverse=True)


def test_a_key_is_the_scan_and_the_position_of_the_first_frame() -> None:
    geometry = ScanGeometry(width=5, height=3, frames_per_position=3, frames_per_chunk=8, partitions=2)
    assert [chunk_key(17, geometry, c) for c in range(4)] == [b"17/0", b"17/2", b"17/5", b"17/8"]
    assert marker_key(17, "end") == b"17/end"


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 0},
        {"width": 65_536},
        {"height": 0},
        {"frames_per_position": 0},
        {"frames_per_chunk": 0},
        {"frames_per_chunk": 1025},
        {"partitions": 0},
        {"partitions": 1025},
        {"width": 65_535, "height": 65_535, "frames_per_position": 2},
        {"depth": 1},
    ],
    ids=str,
)
def test_a_scan_that_cannot_be_is_refused(wrong: dict[str, int]) -> None:
    sound = {"width": 4, "height": 4, "frames_per_chunk": 16, "partitions": 1}
    ScanGeometry(**sound)
    with pytest.raises(ValidationError):
        ScanGeometry(**(sound | wrong))
