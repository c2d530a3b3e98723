"""What a plan computes, against cases computed by hand; the camera and its costs are those of plan_tables.py."""

from __future__ import annotations

import pytest

from service.errors import InputError
from stemstream import plan_queues
from stemstream.plan import make_plan
from stemstream.plan_costs import CODECS
from stemstream.plan_result import PLACEMENTS
from tests.stemstream.plan_tables import REQUEST, case, costs, row
from topics.geometry import SECTORS

GIB = 1.073741824
MIB = 0.001048576


@pytest.fixture(autouse=True)
def coarse_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested here is computed; test_plan_queues.py has the simulation."""
    monkeypatch.setattr(plan_queues, "PARCELS_A_SCAN", 100)


# Until the file is there when nothing has to be waited for: measured, fsync of 66.3552 GB x 0.0100136, one chunk.
FSYNC_S = 66.3552 * 0.01001356 / 0.5
CHUNK_S = 16 * 663_552 / 10e9
TAIL_S = 0.5 + FSYNC_S + CHUNK_S


def test_all_placements_and_codecs_are_computed() -> None:
    cases = make_plan(REQUEST, costs()).cases
    assert [(c.placement, c.codec) for c in cases] == [(p.name, codec) for p in PLACEMENTS for codec in CODECS]


# Cores.


def test_receivers_have_cores_for_the_camera_and_room_to_spare() -> None:
    """10 GB/s of 0.5 CPU-seconds each are 5 busy cores, planned to be busy for half of the time."""
    receivers = case("counters-edge").receivers
    assert (receivers.cores, receivers.needed) == (10, 10)
    assert receivers.cores_a_sector == pytest.approx(1.25)
    assert receivers.gb_s == pytest.approx(20)


def test_counters_at_the_microscope_keep_up_with_the_camera() -> None:
    counters = case("counters-edge").counters
    assert (counters.cores, counters.decided_by) == (20, "cores")
    assert counters.gb_s == pytest.approx(20)


def test_remote_counters_keep_up_with_what_the_link_brings() -> None:
    """10.4 Gbit/s bring 1.3 GB/s of 0.26 GB for each raw GB: 5 GB/s raw, which half-busy cores do with ten."""
    counters = case("counters-remote", link_gbit=10.4).counters
    assert counters.cores == 10
    assert case("all-remote", link_gbit=10.0).counters.cores == 10


def test_so_few_counters_are_done_when_the_next_scan_begins() -> None:
    """66.3552 GB in 20 s are 3.31776 cores, half busy 6.6."""
    assert case("counters-edge").counters.least == 7
    assert case("counters-remote", link_gbit=1.0).counters.least == 1


def test_there_is_a_partition_for_every_counter_and_the_same_number_for_each() -> None:
    assert case("counters-edge").counters.partitions == 20
    assert case("counters-edge", counters=3).counters.partitions == 9
    assert case("counters-edge", counters=1).counters.partitions == 8


def test_no_broker_is_without_a_partition() -> None:
    assert case("counters-edge", counters=5, brokers=13).counters.partitions == 15


def test_tls_is_paid_at_both_ends_of_every_connection() -> None:
    """0.25 GB of chunks and 0.01 GB of events a raw GB; two copies are written, one is read, one is replicated."""
    load, bare = case("counters-edge", tls=True).load, case("counters-edge").load
    assert load.receiver_s - bare.receiver_s == pytest.approx(0.4 * 0.25)
    assert load.broker_s - bare.broker_s == pytest.approx(0.5 * (2 + 2) * 0.26)
    assert load.counter_s - bare.counter_s == pytest.approx(0.4 * 0.26)
    assert load.sink_s - bare.sink_s == pytest.approx(0.4 * 0.01)
    assert load.tls_s == pytest.approx(load.total_s - bare.total_s)
    assert bare.tls_s == 0


# Brokers.


def test_brokers_are_as_many_as_their_disks_need() -> None:
    """Two copies of 2.6 GB/s, on disks of 2 GB/s that are half busy: 5.2, which is more than the cores' 4."""
    brokers = case("counters-edge").brokers
    assert (brokers.machines, brokers.decided_by) == (6, "disk")
    assert brokers.disk_gb_s == pytest.approx(5.2 / 6)
    assert brokers.network_gbit == pytest.approx(5.2 * 8 / 6)
    assert brokers.busy_cores == pytest.approx(20)


@pytest.mark.parametrize(
    ("assumed", "machines", "decided_by"),
    [
        ({"broker_cores": 5}, 8, "cores"),
        ({"broker_network_gbit": 8}, 11, "network"),
        ({"broker_disk_gb_s": 100, "broker_cores": 1000}, 2, "copies"),
    ],
)
def test_brokers_are_as_many_as_the_scarcest_needs(assumed: dict[str, float], machines: int, decided_by: str) -> None:
    brokers = case("counters-edge", table=costs(**assumed)).brokers
    assert (brokers.machines, brokers.decided_by) == (machines, decided_by)


def test_copies_cost_broker_cores_network_and_disk() -> None:
    two, four = case("counters-edge").brokers, case("counters-edge", replication=4).brokers
    assert four.busy_cores == pytest.approx(2 * two.busy_cores)
    assert four.machines == 11


def test_a_remote_broker_gets_no_more_than_the_link_brings() -> None:
    """10 Gbit/s bring 1.25 GB/s of chunks, a quarter of 5 GB/s raw."""
    assert case("all-remote", link_gbit=10.0).brokers.busy_cores == pytest.approx(10)


def test_fewer_brokers_than_copies_are_refused() -> None:
    with pytest.raises(InputError, match=r"--brokers 1: 2 copies need as many \(--replication\)"):
        case("counters-edge", brokers=1)


def test_the_disk_space_is_that_of_all_copies_as_long_as_the_registry_keeps_them() -> None:
    """180 scans/h of 16.5888 GB of chunks and 0.663552 GB of events; chunks are kept for 24 h, events for 168 h."""
    kept = case("counters-edge").retention
    assert (kept.chunks_hours, kept.events_hours) == (24, 168)
    assert kept.chunks_tb == pytest.approx(180 * 24 * 2 * 16.5888e-3)
    assert kept.events_tb == pytest.approx(180 * 168 * 2 * 0.663552e-3, rel=1e-5)


def test_when_the_disks_are_full_is_when_chunks_and_events_have_filled_them() -> None:
    """6 x 10 TB, into which 5.97 TB of chunks and 0.24 TB of events come every hour."""
    assert case("counters-edge").retention.full_after_hours == pytest.approx(60 / (5.971968 + 0.238879), rel=1e-5)


def test_disks_that_are_full_only_when_chunks_are_forgotten_already_fill_with_events() -> None:
    kept = case("counters-edge", table=costs(broker_disk_tb=26)).retention
    after_a_day = 24 * (5.971968 + 0.238879)
    assert kept.full_after_hours == pytest.approx(24 + (6 * 26 - after_a_day) / 0.238879, rel=1e-4)


def test_disks_that_hold_all_that_is_kept_are_never_full() -> None:
    kept = case("counters-edge", table=costs(broker_disk_tb=32)).retention
    assert kept.disk_tb == 192 > kept.chunks_tb + kept.events_tb
    assert kept.full_after_hours is None


# The link.


@pytest.mark.parametrize(
    ("placement", "codec", "gb"),
    [
        ("counters-remote", "full", 0.26),
        ("counters-remote", "zero-suppressed", 0.02),
        ("all-remote", "full", 0.25),
        ("all-remote", "zero-suppressed", 0.01),
        ("counters-edge", "full", 0.01),
        ("counters-edge", "zero-suppressed", 0.01),
    ],
)
def test_the_link_carries_what_is_produced_on_its_one_side_and_read_on_the_other(
    placement: str, codec: str, gb: float
) -> None:
    found = case(placement, codec)  # type: ignore[arg-type]
    assert found.link.crossing_gb == pytest.approx(66.3552 * gb, rel=1e-5)
    assert found.closed_form.link_utilisation == pytest.approx(66.3552 * gb / 12.5 / 20, rel=1e-5)


def test_only_a_part_of_the_link_is_ours() -> None:
    whole, part = case("counters-remote").link, case("counters-remote", table=costs(link_efficiency=0.8)).link
    assert part.gb_s == pytest.approx(0.8 * whole.gb_s)


def test_a_long_round_trip_limits_what_connections_carry() -> None:
    """One MiB a connection every 0.1 s; each of the 30 counters has a connection to four of the six brokers."""
    found = case("counters-remote", counters=30, rtt_ms=100)
    assert found.link.decided_by == "round trip"
    assert found.link.gb_s == pytest.approx(30 * 4 * MIB / 0.1 / 0.26, rel=1e-5)
    assert any("round trip of 100 ms" in text for text in found.warnings)


def test_more_counters_are_planned_when_the_round_trip_asks_for_them() -> None:
    found = case("counters-remote", rtt_ms=100)
    assert (found.counters.cores, found.counters.decided_by) == (62, "round trip")
    assert found.link.gb_s >= 10
    assert not any("link" in text for text in found.warnings)


def test_receivers_and_sink_have_a_connection_to_every_broker() -> None:
    assert case("all-remote", rtt_ms=1000).link.gb_s == pytest.approx(SECTORS * 6 * MIB / 0.25)
    assert case("counters-edge", rtt_ms=1000).link.gb_s == pytest.approx(6 * MIB / 0.01, rel=1e-5)


# The time to the file.


def test_when_all_keep_up_the_file_comes_after_the_tail() -> None:
    found = case("counters-edge").closed_form
    assert found.slowest == "camera"
    assert found.time_to_file_s == pytest.approx(TAIL_S, rel=1e-5)
    assert found.time_to_file_p99_s == pytest.approx(TAIL_S + 1, rel=1e-5)
    assert found.stable


def test_when_the_link_is_thin_the_file_comes_when_its_bytes_have_crossed() -> None:
    """66.3552 GB at the 5 GB/s of a link of 10.4 Gbit/s are 13.27104 s, of which the scan took 6.63552 s."""
    found = case("counters-remote", link_gbit=10.4)
    assert found.closed_form.slowest == "link"
    assert found.closed_form.time_to_file_s == pytest.approx(13.27104 - 6.63552 + TAIL_S, rel=1e-5)
    assert found.closed_form.stable
    assert "the link is too thin to keep up with the camera: that takes 21 Gbit/s" in found.warnings


@pytest.mark.parametrize(("placement", "trips"), [("counters-remote", 7), ("all-remote", 1), ("counters-edge", 1.5)])
def test_round_trips_are_part_of_the_tail(placement: str, trips: float) -> None:
    tail = case(placement, codec="zero-suppressed", rtt_ms=1).closed_form.tail
    assert tail.total_s == pytest.approx(TAIL_S + trips / 1000, rel=1e-5)


def test_too_few_counters_make_the_file_late() -> None:
    """Four counters do 4 GB/s: 16.5888 s for a scan."""
    found = case("counters-edge", counters=4)
    assert found.closed_form.slowest == "counters"
    assert found.closed_form.time_to_file_s == pytest.approx(16.5888 - 6.63552 + TAIL_S, rel=1e-5)
    assert "--counters 4: 20 are needed to keep up with what comes, with room to spare" in found.warnings


def test_a_sink_slower_than_the_camera_makes_the_file_late() -> None:
    """It is one process: 0.2 CPU-seconds a GB are 5 GB/s."""
    found = case("counters-edge", table=costs(row("full", sink=0.2), row("zero-suppressed")))
    assert found.closed_form.slowest == "sink"
    assert found.closed_form.time_to_file_s == pytest.approx(13.27104 - 6.63552 + TAIL_S, rel=1e-5)
    assert "the sink is one process and needs 2.0 cores: it is slower than the camera" in found.warnings


def test_a_scan_that_takes_longer_than_until_the_next_one_makes_each_file_later() -> None:
    """Two counters need 33.1776 s for what comes every 20 s."""
    found = case("counters-edge", counters=2)
    assert not found.closed_form.stable
    assert found.closed_form.behind_s == pytest.approx(13.1776)
    assert found.simulated.grows
    assert any(text.startswith("no steady state: a scan comes every 20.0 s and keeps") for text in found.warnings)


# What the receivers lose.


def test_a_link_below_the_camera_in_front_of_the_broker_loses_what_the_buffers_do_not_hold() -> None:
    """5 of 10 GB/s for 6.63552 s, but for 4 x 0.25 GiB of buffers and 4 x 64 MiB of chunks, raw 4 x as much."""
    found = case("all-remote", link_gbit=10.0)
    lost_gb = 5 * 6.63552 - GIB - 4 * 64 * MIB * 4
    assert found.closed_form.intake == "link"
    assert found.closed_form.lost_frames == round(lost_gb / 663_552e-9)
    assert any("the receivers' buffer overflows: the link passes on 5.0 of 10.0 GB/s" in w for w in found.warnings)


def test_the_buffer_that_the_warning_names_is_enough() -> None:
    warning = next(text for text in case("all-remote", link_gbit=10.0).warnings if "--buffer-gib" in text)
    enough = int(warning.split("--buffer-gib ")[1].split()[0])
    assert case("all-remote", link_gbit=10.0, buffer_gib=enough).closed_form.lost_frames == 0
    assert case("all-remote", link_gbit=10.0, buffer_gib=enough - 1).closed_form.lost_frames > 0


def test_receivers_that_are_too_slow_have_the_buffer_only_and_not_the_queues_behind_them() -> None:
    """4 cores take 8 GB/s."""
    found = case("counters-edge", receiver_cores=4)
    assert found.closed_form.intake == "receivers"
    assert found.closed_form.lost_frames == round((2 * 6.63552 - GIB) / 663_552e-9)
    assert "--receiver-cores 4: 10 are needed to keep up with what comes, with room to spare" in found.warnings


def test_a_buffer_as_large_as_the_backlog_loses_nothing_and_the_file_waits() -> None:
    found = case("counters-edge", receiver_cores=4, buffer_gib=7)
    assert found.closed_form.lost_frames == 0
    assert found.closed_form.time_to_file_s == pytest.approx(66.3552 / 8 - 6.63552 + TAIL_S, rel=1e-5)


def test_no_buffer_is_enough_for_scans_that_come_faster_than_they_are_taken_in() -> None:
    """3.2 GB/s take 64 of the 66.3552 GB that come every 20 s. The full buffer is what the last frame waits for."""
    found = case("all-remote", link_gbit=6.4, buffer_gib=100)
    assert found.closed_form.lost_frames == round(2.3552 / 663_552e-9)
    assert found.closed_form.slowest == "link"
    waits_s = (200 * GIB + 4 * 64 * MIB * 4) / 3.2
    assert found.closed_form.time_to_file_s == pytest.approx(waits_s + TAIL_S, rel=1e-5)
    assert any(w.endswith("no buffer is enough, as a scan comes every 20.0 s and takes 20.7 s") for w in found.warnings)


def test_disks_that_are_too_slow_make_receivers_lose() -> None:
    """Two brokers write 4 GB/s, two copies of 7.69 GB/s raw."""
    found = case("counters-edge", brokers=2)
    assert found.closed_form.intake == "broker"
    assert found.closed_form.intake_gb_s == pytest.approx(4 / 0.52, rel=1e-5)
    assert found.closed_form.lost_frames > 0
    assert "--brokers 2: 6 are needed to keep up with what comes, with room to spare" in found.warnings


# Other warnings.


def test_a_sector_that_needs_more_than_a_process_can_use_is_said_with_the_rate_that_it_can() -> None:
    found = case("counters-edge", frame_rate=87_000.0, table=costs(row("full", receiver=0.3), row("zero-suppressed")))
    # 57.729 GB/s / 4 x 0.3 = 4.33 cores; 87,000 / 4.33
    assert any("a sector needs 4.3: as it is built, 20,094 frames/s are the most" in text for text in found.warnings)


def test_a_receiver_that_uses_two_cores_has_twice_the_rate() -> None:
    table = costs(row("full", receiver=0.3), row("zero-suppressed"), receiver_process_cores=2)
    found = case("counters-edge", frame_rate=87_000.0, table=table)
    assert any("uses about 2 cores, but a sector needs 4.3: as it is built, 40,188" in text for text in found.warnings)


def test_a_density_beyond_the_measured_ones_is_said() -> None:
    table = costs(*(row(codec, electrons=n) for codec in CODECS for n in (80, 2000)))
    assert not case("counters-edge", table=table).extrapolated
    for electrons in (50, 2500):
        found = case("counters-edge", table=table, electrons=electrons)
        assert found.extrapolated
        text = f"{electrons} electrons a frame were not measured: the costs are extrapolated from 80 to 2000"
        assert text in found.warnings


def test_where_all_fits_there_is_nothing_to_warn_of() -> None:
    assert (
        case(
            "counters-edge", table=costs(row("full", receiver=0.3), row("zero-suppressed"), broker_disk_tb=100)
        ).warnings
        == []
    )
