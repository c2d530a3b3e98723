"""The simulated queues, by themselves and against the closed form."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from stemstream.plan import make_plan, plan_case
from stemstream.plan_queues import Burst, Simulated, Station, simulate
from stemstream.plan_result import PLACEMENTS, Request
from tests.stemstream.plan_tables import camera_costs

CAMERA = Request(
    frame_rate=87_000,
    width=1024,
    height=1024,
    electrons=500,
    pause_s=60,
    link_gbit=100,
    rtt_ms=20,
    replication=3,
    tls=False,
    buffer_gib=0.5,
)

# 100 GB in 10 s, every 30 s.
BURST = Burst(gb_s=10, scan_gb=100, period_s=30, scans=4, chunks_a_scan=100_000)


def simulated(*speeds: float, intake: float = 20, buffer_gb: float = 1, burst: Burst = BURST) -> Simulated:
    stations = [Station(f"station {number}", speed) for number, speed in enumerate(speeds)]
    return simulate(burst, Station("intake", intake), stations, buffer_gb=buffer_gb, tail_s=0.5)


def test_stations_that_keep_up_leave_only_the_tail() -> None:
    found = simulated(20, 15)
    assert found.time_to_file_s == pytest.approx([0.5] * 4, abs=0.02)
    assert not found.grows
    assert found.lost_gb == [0] * 4


def test_the_slowest_station_is_what_the_file_waits_for_wherever_it_stands() -> None:
    """100 GB at 5 GB/s are 20 s, 10 s longer than the scan."""
    for speeds in ((5, 20, 20), (20, 5, 20), (20, 20, 5), (5, 5, 5)):
        assert simulated(*speeds).time_to_file_s == pytest.approx([10.5] * 4, abs=0.07)


def test_the_queue_is_before_the_slow_station_and_as_long_as_what_it_could_not_do() -> None:
    found = simulated(20, 5, 20)
    most = {queue.station: queue.most_gb for queue in found.queues}
    assert most["station 1"] == pytest.approx(50, rel=0.01)
    assert max(most["station 0"], most["station 2"]) < 1


def test_queue_lengths_over_time_rise_in_the_scan_and_fall_behind_it() -> None:
    found = simulated(5)
    length = dict(zip(found.sample_s, found.queues[0].gb, strict=True))
    assert length[0.3] == pytest.approx(0.3 * 5, abs=0.2)
    assert length[9.9] == pytest.approx(9.9 * 5, abs=0.2)
    assert length[15.0] == pytest.approx(25, abs=0.2)
    assert length[24.0] == 0
    assert length[36.0] == pytest.approx(30, abs=0.2)


def test_a_scan_that_takes_longer_than_the_period_delays_each_next_one_by_the_same() -> None:
    """100 GB at 2.5 GB/s are 40 s, 10 s more than there are."""
    found = simulated(2.5)
    assert found.grows
    assert found.time_to_file_s == pytest.approx([30.5, 40.5, 50.5, 60.5], abs=0.1)


@pytest.mark.parametrize(("speed", "grows"), [(3.30, True), (3.36, False)])
def test_growth_is_seen_close_to_the_limit(speed: float, grows: bool) -> None:
    """100 GB in 30 s are 3.333 GB/s."""
    assert simulated(speed).grows is grows


def test_an_intake_below_the_camera_fills_the_buffer_and_loses_the_rest() -> None:
    """2 GB/s too little for 10 s, of which the buffer holds 5 GB."""
    found = simulated(20, intake=8, buffer_gb=5)
    assert found.lost_gb == pytest.approx([15] * 4, rel=1e-6)
    assert found.buffer.most_gb == pytest.approx(5)
    assert found.time_to_file_s == pytest.approx([5 / 8 + 0.5] * 4, abs=0.05)
    assert not found.grows


def test_a_buffer_that_holds_the_backlog_loses_nothing() -> None:
    found = simulated(20, intake=8, buffer_gb=21)
    assert found.lost_gb == [0] * 4
    assert found.buffer.most_gb == pytest.approx(20)
    assert found.time_to_file_s == pytest.approx([20 / 8 + 0.5] * 4, abs=0.05)


def test_a_buffer_that_is_not_empty_when_the_next_scan_begins_loses_more_of_that() -> None:
    """The intake takes 60 GB in the 30 s of a period; of the first scan 20 + 50 GB are kept, of the next ones 60."""
    found = simulated(20, intake=2, buffer_gb=50)
    assert found.lost_gb == pytest.approx([30, 40, 40, 40], abs=0.1)
    assert found.time_to_file_s == pytest.approx([25.5] * 4, abs=0.1)
    assert not found.grows


def test_a_buffer_much_smaller_than_a_parcel_loses_nothing_when_the_intake_keeps_up() -> None:
    assert simulated(20, intake=10.1, buffer_gb=0.001).lost_gb == [0] * 4


@pytest.mark.parametrize("chunks", [7, 1000, 99_999])
def test_scans_may_follow_one_another_without_a_pause(chunks: int) -> None:
    """Sums of the times of single parcels are not exactly that of a scan."""
    burst = Burst(gb_s=0.3, scan_gb=0.1, period_s=0.1 / 0.3, scans=4, chunks_a_scan=chunks)
    found = simulated(0.4, intake=0.4, burst=burst)
    assert found.time_to_file_s == pytest.approx([0.5 + 0.1 / 0.4 / min(chunks, 1000)] * 4, abs=0.01)
    assert not found.grows


def test_a_scan_of_one_chunk_is_a_parcel() -> None:
    found = simulated(20, burst=Burst(gb_s=10, scan_gb=0.01, period_s=1, scans=3, chunks_a_scan=1))
    assert found.time_to_file_s == pytest.approx([0.5 + 0.0005] * 3)


def test_the_same_is_simulated_every_time() -> None:
    assert simulated(5, 7, 3) == simulated(5, 7, 3)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"electrons": 80.0},
        {"electrons": 2000.0, "tls": True},
        {"link_gbit": 10.0, "pause_s": 300.0},
        {"link_gbit": 400.0, "rtt_ms": 80.0},
        {"counters": 20, "buffer_gib": 200.0},
        {"width": 256, "height": 256, "pause_s": 5.0},
        {"frame_rate": 1000.0, "width": 64, "height": 64, "pause_s": 2.0, "link_gbit": 1.0},
    ],
)
def test_where_the_queues_do_not_grow_the_simulation_confirms_the_closed_form(changes: dict[str, float]) -> None:
    compared = 0
    for case in make_plan(replace(CAMERA, **changes), camera_costs()).cases:  # type: ignore[arg-type]
        assert case.simulated.grows != case.closed_form.stable
        assert not any("do not agree" in text for text in case.warnings)
        if case.closed_form.stable:
            assert case.simulated.time_to_file_s[-1] == pytest.approx(case.closed_form.time_to_file_s, rel=0.03)
            compared += 1
    assert compared >= 4


def test_where_the_queues_grow_the_simulated_files_are_later_by_what_the_closed_form_says() -> None:
    unstable = 0
    for case in make_plan(replace(CAMERA, link_gbit=10.0, pause_s=30.0), camera_costs()).cases:
        if not case.closed_form.stable:
            files = case.simulated.time_to_file_s
            assert case.simulated.grows
            for before, after in pairwise(files):
                assert after - before == pytest.approx(case.closed_form.behind_s, rel=0.01)
            unstable += 1
    assert unstable == 1


@pytest.mark.parametrize(
    ("placement", "changes"),
    [
        ("all-remote", {"link_gbit": 40.0}),
        ("counters-edge", {"receiver_cores": 20}),
        ("counters-remote", {"brokers": 5, "pause_s": 2.0}),
    ],
)
def test_the_simulation_loses_as_many_frames_as_were_computed(placement: str, changes: dict[str, float]) -> None:
    place = next(found for found in PLACEMENTS if found.name == placement)
    case = plan_case(replace(CAMERA, **changes), camera_costs(), place, "full")  # type: ignore[arg-type]
    lost = case.simulated.lost_gb[-1] / 663_552e-9
    assert lost == pytest.approx(case.closed_form.lost_frames, rel=1e-3)
    assert lost > 1000
