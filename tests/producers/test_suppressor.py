"""Zero suppression in the receiver: what it sends, and what it refuses before it is ready."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from producers.simulator import Simulation
from producers.suppression import SuppressionSettings
from producers.suppressor import Suppressor, check_suppression
from service.errors import InputError
from topics import suppressed


@pytest.fixture(scope="module")
def sector_frames() -> NDArray[np.uint16]:
    pixels, _ = Simulation(4, 4, seed=5).frames(0, 16)
    return np.ascontiguousarray(pixels[:, 144:288])


def sent(payload: bytes, frames: int) -> NDArray[np.uint16]:
    """The sector frames with what was not sent as 0."""
    listed = suppressed.decompress(memoryview(payload), frames)
    places = np.cumsum(listed[:, 0].astype(np.int64) + 1) - 1
    flat = np.zeros(frames * 144 * 576, np.uint16)
    flat[places] = listed[:, 1]
    return flat.reshape(frames, 144, 576)


def test_exactly_the_pixels_above_the_floor_are_sent(sector_frames: NDArray[np.uint16]) -> None:
    found = Suppressor(1, SuppressionSettings(27)).compress(sector_frames)
    assert found is not None
    payload, floor = found
    assert floor == 27
    np.testing.assert_array_equal(sent(payload, 16), np.where(sector_frames > 27, sector_frames, 0))
    assert len(payload) < sector_frames.nbytes / 50


def test_an_automatic_floor_is_that_of_the_first_chunk_with_noise(sector_frames: NDArray[np.uint16]) -> None:
    suppressor = Suppressor(1, SuppressionSettings(None))
    assert suppressor.compress(np.zeros_like(sector_frames)) is None  # sent in full
    for _ in range(15):
        assert suppressor.compress(sector_frames) is None  # it is not looked for in every chunk
    found = suppressor.compress(sector_frames)
    assert found is not None
    assert 24 < found[1] < 30
    assert Suppressor(1, SuppressionSettings(None)).compress(sector_frames) == found
    assert suppressor.compress(sector_frames + np.uint16(9)) != found
    assert suppressor.compress(sector_frames) == found


@pytest.mark.parametrize("floor", [None, 15.0], ids=["auto", "a floor"])
def test_references_that_allow_no_suppression_are_refused_at_the_start(floor: float | None) -> None:
    dark = np.full((576, 576), 12, np.float32)
    check_suppression(SuppressionSettings(floor, dark=dark))
    dark = dark.copy()
    dark[10, 20] = 6000  # without gain, smaller values would wrap round
    with pytest.raises(InputError, match="zero suppression: "):
        check_suppression(SuppressionSettings(floor, dark=dark))
