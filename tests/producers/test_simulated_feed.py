"""A simulated scan as a live feed: what goes wrong on request is what the truth file says."""

from __future__ import annotations

import concurrent.futures
import io
import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from producers import frames_ahead
from producers.feed_sender import FeedSender, SenderSettings
from producers.frames_ahead import FRAME_BYTES, FramesAhead
from producers.scan_shape import SizeFields
from producers.simulated_feed import (
    MAX_FRAMES_TO_SEND,
    Faults,
    ScanPlan,
    plan_scan,
    simulated_scan,
    write_feed_truth,
)
from producers.simulator import Simulation
from tests.producers.feed_receivers import Received, Receivers, listening

SECTORS = range(4)


@pytest.fixture
def receivers() -> Iterator[Receivers]:
    with listening() as receivers:
        yield receivers


@pytest.fixture(autouse=True)
def _several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames_ahead, "BATCH_FRAMES", 8)


def simulation(width: int = 8, height: int = 5, frames_per_position: int = 1) -> Simulation:
    return Simulation(width, height, frames_per_position=frames_per_position, electrons=20, seed=4)


def numbers_of(plan: ScanPlan, sector: int) -> list[int]:
    return list(map(int, plan.sectors[sector].frame_numbers))


def send(
    receivers: Receivers,
    made: Simulation,
    faults: Faults,
    *,
    out_of_order: int = 0,
    threads: int = 4,
    pool: int | None = None,
) -> dict[str, NDArray[Any]]:
    """Send a scan with faults; returns its truth file."""
    plan = plan_scan(made.frame_count, faults, out_of_order=out_of_order, seed=made.seed)
    file = io.BytesIO()
    served = {sector: receivers.to[sector] for sector in SECTORS if sector not in faults.lose_sectors}
    with (
        FramesAhead(made, plan.frames, pool=pool) as ahead,
        FeedSender(SenderSettings(served, threads=threads)) as sender,
    ):
        sender.connect()
        ahead.wait_until_ahead()
        sender.send(simulated_scan(made, plan, ahead, late_s=faults.late_s))
        write_feed_truth(file, made, plan, ahead)
    file.seek(0)
    with np.load(file) as archive:
        return dict(archive)


def right(made: Simulation, m: Received) -> bool:
    """Header and pixels are those of the frame that the header names."""
    position = m.frame_number // made.frames_per_position
    pixels = made.frames(m.frame_number, 1)[0][0, 144 * m.module : 144 * (m.module + 1)]
    return (m.x, m.y) == (position % made.width, position // made.width) and np.array_equal(m.pixels, pixels)


# Over the wire


def test_without_faults_the_scan_arrives_as_it_was_simulated(receivers: Receivers) -> None:
    made = simulation(4, 3, frames_per_position=3)
    truth = send(receivers, made, Faults())
    messages = receivers.wait_for(4 * 36)
    assert all(right(made, m) and m.module == m.sector for m in messages)
    for sector in SECTORS:
        assert sorted(receivers.numbers(sector)) == list(range(36))
    assert truth["not_sent"].shape == (36, 4)
    assert not truth["not_sent"].any()
    assert truth["frames_made"] == 36
    assert np.array_equal(truth["y"], made.frames(0, 36)[1].y)


def test_what_does_not_arrive_is_what_the_truth_file_says(receivers: Receivers) -> None:
    made = simulation()
    faults = Faults(lose=0.1, wrong_module=0.05, repeat=0.1, abort_at=0.75, late_s=(0, 0.1, 0, 0))
    truth = send(receivers, made, faults, out_of_order=3)
    lost, wrong, repeated = 12, 6, 12  # of 30 frames x 4 sectors
    messages = receivers.wait_for(120 - lost + repeated)
    good = {(m.frame_number, m.sector) for m in messages if m.module == m.sector}
    assert {tuple(place) for place in np.argwhere(~truth["not_sent"]).tolist()} == good
    assert len(good) == 120 - lost - wrong
    assert not truth["not_sent"][:30].all()
    assert truth["not_sent"][30:].all()
    assert all(right(made, m) for m in messages if m.module == m.sector)


def test_a_frame_with_a_wrong_module_has_the_next_module_and_its_own_pixels(receivers: Receivers) -> None:
    made = simulation(4, 2)
    truth = send(receivers, made, Faults(wrong_module=1.0))
    assert truth["not_sent"].all()
    for m in receivers.wait_for(32):
        assert m.module == (m.sector + 1) % 4
        assert right(made, m._replace(module=m.sector))


def test_a_sector_that_is_lost_sends_nothing(receivers: Receivers) -> None:
    truth = send(receivers, simulation(), Faults(lose_sectors=(2,)))
    assert {m.sector for m in receivers.wait_for(3 * 40)} == {0, 1, 3}
    assert truth["not_sent"].all(axis=0).tolist() == [False, False, True, False]


def test_an_aborted_scan_still_says_how_many_frames_it_should_have_had(receivers: Receivers) -> None:
    send(receivers, simulation(), Faults(abort_at=0.25))
    assert {m.frames_this_thread for m in receivers.wait_for(4 * 10)} == {10}  # 40 frames, 4 threads
    for sector in SECTORS:
        assert sorted(receivers.numbers(sector)) == list(range(10))


def test_frames_arrive_out_of_order_within_the_depth_and_differently_in_each_sector(receivers: Receivers) -> None:
    send(receivers, simulation(), Faults(), out_of_order=6, threads=1)
    receivers.wait_for(4 * 40)
    orders = [receivers.numbers(sector) for sector in SECTORS]
    for order in orders:
        assert sorted(order) == list(range(40))
        assert 0 < np.abs(np.array(order) - np.arange(40)).max() <= 6
    assert len(set(map(tuple, orders))) == 4


def test_a_pool_of_frames_is_used_in_turn(receivers: Receivers) -> None:
    made = simulation()
    truth = send(receivers, made, Faults(), pool=12)
    pixels, hits = made.frames(0, 12)
    for m in receivers.wait_for(4 * 40):
        assert (m.x, m.y) == (m.frame_number % 8, m.frame_number // 8)
        assert np.array_equal(m.pixels, pixels[m.frame_number % 12, 144 * m.sector : 144 * (m.sector + 1)])
    assert truth["frames_made"] == 12
    assert np.array_equal(truth["x"], hits.x)


# The plan


def test_the_same_seed_gives_the_same_faults_and_another_seed_others() -> None:
    faults = Faults(lose=0.1, repeat=0.1, wrong_module=0.1)
    first, again, other = (plan_scan(200, faults, out_of_order=5, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.not_sent, again.not_sent)
    assert [numbers_of(first, s) for s in SECTORS] == [numbers_of(again, s) for s in SECTORS]
    assert not np.array_equal(first.not_sent, other.not_sent)


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 1.0])
def test_exactly_the_asked_part_is_lost_or_repeated(part: float) -> None:
    lost = plan_scan(500, Faults(lose=part))
    assert np.count_nonzero(lost.not_sent) == round(part * 2000)
    assert lost.sector_frames == 2000 - round(part * 2000)
    repeated = plan_scan(500, Faults(repeat=part))
    assert repeated.sector_frames == 2000 + round(part * 2000)
    assert not repeated.not_sent.any()
    for sector in SECTORS:
        assert set(Counter(numbers_of(repeated, sector)).values()) <= {1, 2}


def test_faults_that_fill_the_whole_scan_leave_room_for_each_other() -> None:
    plan = plan_scan(10, Faults(lose=0.33, wrong_module=0.33, repeat=0.34))
    assert np.count_nonzero(plan.not_sent) == pytest.approx(26, abs=1)


def test_faults_hit_all_sectors_and_not_only_the_first_frames() -> None:
    not_sent = plan_scan(1000, Faults(lose=0.1)).not_sent
    assert not_sent.sum(axis=0).min() > 50
    assert not_sent[900:].any()


def test_times_grow_and_no_frame_comes_before_its_time() -> None:
    plan = plan_scan(300, Faults(lose=0.1, repeat=0.1), out_of_order=9)
    for slots, frame_numbers, _ in plan.sectors:
        assert (np.diff(slots) >= 0).all()
        assert (slots >= frame_numbers).all()
        assert (slots <= frame_numbers + 9.5).all()


def test_an_aborted_scan_has_at_least_one_frame() -> None:
    assert plan_scan(10, Faults(abort_at=0.001)).frames == 1
    assert plan_scan(10, Faults(abort_at=1.0)).frames == 10


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lose": -0.1}, "lose is -0.1, expected a fraction"),
        ({"repeat": float("nan")}, "repeat is nan"),
        ({"wrong_module": 1.5}, "wrong_module is 1.5"),
        ({"lose": 0.6, "repeat": 0.6}, "more than 1 together"),
        ({"abort_at": 0.0}, "abort_at is 0.0"),
        ({"lose_sectors": (4,)}, "the sectors are 0 to 3"),
        ({"late_s": (0, 0, 0, -1)}, "late_s is"),
        ({"late_s": (0, 0)}, "late_s is"),
    ],
)
def test_faults_that_cannot_be_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Faults(**wrong)


@pytest.mark.parametrize("frames", [0, MAX_FRAMES_TO_SEND + 1])
def test_a_scan_too_large_to_plan_is_refused(frames: int) -> None:
    with pytest.raises(ValueError, match=f"the scan has {frames} frames"):
        plan_scan(frames, Faults())


@pytest.mark.parametrize(
    ("fields", "expected"),
    [(SizeFields.NUMBER, (8, 5)), (SizeFields.MINUS_ONE, (7, 4)), (SizeFields.FLYBACK, (7, 5))],
)
def test_the_size_fields_say_what_is_asked(fields: SizeFields, expected: tuple[int, int]) -> None:
    made, plan = simulation(), plan_scan(40, Faults())
    with FramesAhead(made, 1) as ahead:
        scan = simulated_scan(made, plan, ahead, size_fields=fields)
        assert (scan.width_field, scan.height_field) == expected
        with pytest.raises(ValueError, match="size fields auto"):
            simulated_scan(made, plan, ahead, size_fields=SizeFields.AUTO)


# Frames ahead


def test_a_scan_larger_than_the_memory_is_made_while_it_is_sent() -> None:
    made, plan = simulation(), plan_scan(40, Faults(lose=0.1), out_of_order=5)
    came: list[list[tuple[int, int]]] = [[], [], [], []]
    with FramesAhead(made, 40, memory_bytes=24 * FRAME_BYTES) as ahead:
        ahead.wait_until_ahead()
        scan = simulated_scan(made, plan, ahead)
        for frames in itertools.zip_longest(*scan.sectors):
            for sector, frame in enumerate(frames):
                if frame is not None:
                    came[sector].append((frame.frame_number, int(frame.pixels.sum())))
            assert len(ahead._pixels) <= 3  # batches of 8
        hits = ahead.truth()
    pixels, truth = made.frames(0, 40)
    for sector in SECTORS:
        sums = pixels[:, 144 * sector : 144 * (sector + 1)].sum(axis=(1, 2)).tolist()
        assert came[sector] == [(number, sums[number]) for number in numbers_of(plan, sector)]
    assert np.array_equal(hits.x, truth.x)
    assert np.array_equal(hits.offsets, truth.offsets)


def test_no_more_is_made_ahead_than_fits_in_memory() -> None:
    made: list[int] = []
    with FramesAhead(simulation(), 40, memory_bytes=24 * FRAME_BYTES) as ahead:
        ahead.wait_until_ahead(made.append)
        assert made[-1] == 24
        done, _ = concurrent.futures.wait([ahead._making], timeout=0.5)  # long enough for the rest
        assert not done
        assert len(ahead._pixels) == 3


def test_frames_that_nobody_needs_are_made_for_the_truth_and_not_kept() -> None:
    made, plan = simulation(), plan_scan(40, Faults(lose_sectors=(0, 1, 2, 3)))
    with FramesAhead(made, 40, memory_bytes=24 * FRAME_BYTES) as ahead:
        simulated_scan(made, plan, ahead)
        assert np.array_equal(ahead.truth().x, made.frames(0, 40)[1].x)
        assert not ahead._pixels


def test_a_sector_that_sends_nothing_does_not_hold_up_the_making() -> None:
    made, plan = simulation(), plan_scan(40, Faults(lose_sectors=(1,)))
    with FramesAhead(made, 40, memory_bytes=24 * FRAME_BYTES) as ahead:
        scan = simulated_scan(made, plan, ahead)
        for frames in zip(*(scan.sectors[sector] for sector in (0, 2, 3)), strict=True):
            assert {frame.frame_number for frame in frames} == {frames[0].frame_number}
        assert len(ahead.truth().offsets) == 41


def test_what_stops_the_making_is_said_to_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError("no memory for this batch")

    monkeypatch.setattr(Simulation, "frames", fail)
    with FramesAhead(simulation(), 40) as ahead:
        with pytest.raises(MemoryError, match="no memory"):
            ahead.wait_until_ahead()
        with pytest.raises(MemoryError, match="no memory"):
            ahead.sector_frame(0, 3)


def test_a_pool_that_does_not_fit_in_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="a pool of 30 frames is too large: 24 fit in memory"):
        FramesAhead(simulation(), 40, pool=30, memory_bytes=24 * FRAME_BYTES)
