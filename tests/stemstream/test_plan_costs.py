"""The table of costs: between the densities that were measured, from files, and from results of the benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.workloads import OURS, SUPPRESSED
from service.errors import InputError
from stemstream.plan_benchmarks import CONTENDERS
from stemstream.plan_costs import BUILT_IN, CODECS, read_costs
from tests.stemstream.plan_tables import costs, row


def written(path: Path, content: Any) -> Path:  # noqa: ANN401
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_the_built_in_table_has_both_codecs_and_says_where_it_comes_from() -> None:
    built_in = read_costs()
    for codec in CODECS:
        assert built_in.measured_range(codec) == (80, 2000)
    assert built_in.measured.date
    assert built_in.measured.commit
    assert built_in.measured.machine
    assert all(assumption.reason for _, assumption in built_in.assumed)


# Densities.


def test_between_measured_densities_costs_lie_on_a_line() -> None:
    table = costs(row("full", electrons=2000, counter=1.5), row("full", electrons=1000, counter=0.5))
    assert table.at("full", 1000).counter == 0.5
    assert table.at("full", 1250).counter == pytest.approx(0.75)


def test_between_measured_densities_bytes_and_not_their_ratio_lie_on_a_line() -> None:
    table = costs(row("full", electrons=0, traffic_ratio=100), row("full", electrons=100, traffic_ratio=20))
    assert table.at("full", 50).traffic_ratio == pytest.approx(1 / 0.03)


def test_below_the_lowest_density_its_costs_hold() -> None:
    table = costs(row("full", electrons=100, counter=1), row("full", electrons=200, counter=3))
    assert table.at("full", 0).counter == 1


def test_above_the_highest_density_the_line_goes_on_but_never_down() -> None:
    rising = costs(*(row("full", electrons=n, counter=c) for n, c in ((0, 9), (100, 1), (200, 3))))
    assert rising.at("full", 300).counter == pytest.approx(5)
    falling = costs(row("full", electrons=100, counter=3), row("full", electrons=200, counter=1))
    assert falling.at("full", 1000).counter == 1


def test_one_density_holds_for_all() -> None:
    assert costs(row("full", electrons=100, counter=2)).at("full", 5000).counter == 2


def test_a_codec_without_costs_is_refused() -> None:
    with pytest.raises(InputError, match="no stages for the codec zero-suppressed"):
        costs(row("full")).at("zero-suppressed", 100)


# Files.


def test_a_file_replaces_what_was_measured_and_what_it_names_of_the_assumptions(tmp_path: Path) -> None:
    measured = json.loads(BUILT_IN.read_text())["measured"] | {"commit": "mine"}
    own = {"measured": measured, "assumed": {"broker_disk_gb_s": {"value": 7, "reason": "our drives"}}}
    found = read_costs(written(tmp_path / "costs.json", own))
    assert found.measured.commit == "mine"
    assert (found.assumed.broker_disk_gb_s.value, found.assumed.broker_disk_gb_s.reason) == (7, "our drives")
    assert found.assumed.broker_cores == read_costs().assumed.broker_cores


def test_assumptions_alone_are_enough(tmp_path: Path) -> None:
    own = {"assumed": {"link_efficiency": {"value": 0.5, "reason": "shared"}}}
    found = read_costs(written(tmp_path / "costs.json", own))
    assert found.assumed.link_efficiency.value == 0.5
    assert found.measured == read_costs().measured


def row_of(codec: str, **changes: object) -> dict[str, object]:
    costs = {"electrons": 80, "traffic_ratio": 3, "receiver": 1, "broker": 1, "counter": 1, "sink": 1}
    return {"codec": codec, **costs, **changes}


def table_of(*rows: dict[str, object]) -> dict[str, object]:
    tail = {"median_s": 1, "p99_s": 1}
    return {"measured": {"date": "", "commit": "", "machine": "", "how": "", "tail": tail, "stages": rows}}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("no JSON", "no table of costs: file: Invalid JSON"),
        ([], "no table of costs: file: Input should be an object"),
        ({}, "no table of costs: it has none of 'measured', 'assumed' and 'benchmarks'"),
        (table_of(), "no table of costs: measured.stages: Tuple should have at least 1 item"),
        (
            table_of(row_of("full", receiver=0)),
            "no table of costs: measured.stages.0.receiver: Input should be greater",
        ),
        (table_of(row_of("full", sink="NaN")), "no table of costs: measured.stages.0.sink: Input should be a finite"),
        (table_of(row_of("gzip")), "no table of costs: measured.stages.0.codec: Input should be 'full' or"),
        (table_of(row_of("full", more=1)), "no table of costs: measured.stages.0.more: Extra inputs"),
        (table_of(row_of("full"), row_of("full")), "measured: Value error, two rows for the same codec and electrons"),
        ({"assumed": {"speed": {"value": 1, "reason": ""}}}, "no table of costs: speed: Extra inputs"),
        ({"assumed": {"broker_cores": 3}}, "no table of costs: assumed.broker_cores: Input should be an object"),
    ],
)
def test_what_is_no_table_of_costs_is_refused(tmp_path: Path, content: object, words: str) -> None:
    path = written(tmp_path / "costs.json", content)
    with pytest.raises(InputError) as error:
        read_costs(path)
    assert str(error.value).startswith(f"{path}: ")
    assert words in str(error.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json: cannot be read: No such file or directory"):
        read_costs(tmp_path / "none.json")


# Results of the benchmarks.


def spread(median: float, most: float | None = None) -> dict[str, Any]:
    return {"median": median, "min": median, "max": median if most is None else most, "runs": [median]}


def contender(ratio: float, **cpu_seconds_per_gb: float) -> dict[str, Any]:
    total = sum(cpu_seconds_per_gb.values())
    used = {name.replace("_", "-"): spread(value) for name, value in cpu_seconds_per_gb.items()}
    return {
        "seconds": spread(4),
        "frames_per_second": spread(1000),
        "latency_seconds": spread(0.4, 0.9),
        "compression_ratio": spread(ratio),
        "cpu_seconds_per_gb": {**used, "supervisor": spread(0.1), "total": spread(total + 0.1)},
        "peak_megabytes": {"kafka": spread(600)},
    }


def scan(electrons: int, edge: int = 64, noise: float = 5, **contenders: dict[str, Any]) -> dict[str, Any]:
    names = {"ours": OURS, "suppressed": SUPPRESSED, "peer": "file way"}
    return {
        "workload": {"electrons": electrons, "edge": edge, "noise": noise, "frames": edge**2},
        "contenders": {names[name]: figures for name, figures in contenders.items()},
        "start_up": {"receiver_cpu_seconds": spread(0)},
        "idle": {"kafka": 0.0, "counter-0": 0.0, "sink-0": 0.0, "supervisor": 0.0, "total": 0.0},
    }


def results(*scans: dict[str, Any]) -> dict[str, Any]:
    machine = {"date": "2026-03-04T05:06:07+00:00", "commit": "abc+", "machine": "some processor", "cores": 2}
    return {"machine": machine, "quick": False, "benchmarks": {"stages": [], "end-to-end": list(scans)}}


OURS_FULL = contender(3, receiver=0.6, kafka=0.9, counter_0=0.8, sink_0=0.02)
OURS_SUPPRESSED = contender(110, receiver=0.3, kafka=0.03, counter_0=0.04, sink_0=0.02)


def test_the_benchmarks_name_what_is_looked_for() -> None:
    assert list(CONTENDERS) == [OURS, SUPPRESSED]


def test_results_of_the_benchmarks_are_a_table_of_costs(tmp_path: Path) -> None:
    peer = {"seconds": spread(9), "cpu_seconds_per_gb": {"count": spread(5)}}
    file = results(
        scan(80, ours=OURS_FULL, suppressed=OURS_SUPPRESSED, peer=peer),
        scan(500, ours=contender(2.9, receiver=0.7, kafka=1, counter_0=0.9, sink_0=0.03), suppressed=OURS_SUPPRESSED),
    )
    found = read_costs(written(tmp_path / "results.json", file))
    assert found.measured.date == "2026-03-04"
    assert found.measured.commit == "abc+"
    assert found.measured.machine == "2 cores of some processor"
    assert (found.measured.tail.median_s, found.measured.tail.p99_s) == (0.4, 0.9)
    full = found.at("full", 500)
    assert (full.receiver, full.broker, full.counter, full.sink) == pytest.approx((0.7, 1, 0.9, 0.03))
    assert full.traffic_ratio == pytest.approx(2.9)
    assert found.at("zero-suppressed", 80).traffic_ratio == pytest.approx(110)
    assert found.measured_range("zero-suppressed") == (80, 500)
    assert found.assumed == read_costs().assumed


def test_other_noise_and_smaller_scans_are_passed_over(tmp_path: Path) -> None:
    file = results(
        scan(500, edge=128, ours=contender(3, receiver=0.7, kafka=1, counter_0=1, sink_0=1)),
        scan(500, edge=64, ours=contender(3, receiver=0.5, kafka=1, counter_0=1, sink_0=1)),
        scan(500, edge=256, noise=10, ours=contender(2, receiver=0.9, kafka=1, counter_0=1, sink_0=1)),
    )
    assert read_costs(written(tmp_path / "results.json", file)).at("full", 500).receiver == pytest.approx(0.7)


def test_start_up_and_idling_are_left_out(tmp_path: Path) -> None:
    """The scan has 64 x 64 frames, 2.717908992 GB, and took 4 s."""
    measured = scan(500, ours=OURS_FULL)
    measured["start_up"] = {"receiver_cpu_seconds": spread(0.2717908992)}
    measured["idle"] |= {"kafka": 0.1, "sink-0": 0.9}
    found = read_costs(written(tmp_path / "results.json", results(measured))).at("full", 500)
    assert found.receiver == pytest.approx(0.6 - 0.1)
    assert found.broker == pytest.approx(0.9 - 0.1 * 4 / 2.717908992)
    assert found.counter == pytest.approx(0.8)
    assert 0 < found.sink < 0.02


def live(*, full: float, suppressed: float) -> dict[str, Any]:
    """Figures of the feeds at 500 electrons: CPU-seconds that their receivers take for a GB."""
    return {
        "feed": {"electrons": 500, "rate": 600, "at_rate": contender(3, receiver_0=full, kafka=9)},
        "suppressed feed": {"electrons": 500, "rate": 900, "at_rate": contender(110, receiver_0=suppressed)},
        "tail": {
            "rate": 300,
            "series": [
                {"edge": 64, "latency_seconds": {**spread(0.3), "p99": 1.4}},
                {"edge": 256, "latency_seconds": {**spread(0.5), "p99": 0.8}},
            ],
        },
    }


def test_receivers_cost_what_those_of_the_live_feed_do(tmp_path: Path) -> None:
    """Measured at 500 electrons: 0.15 more than from files, which is added at 80 as well; others cost the same."""
    scans = [scan(electrons, ours=OURS_FULL, suppressed=OURS_SUPPRESSED) for electrons in (80, 500)]
    file = results(*scans)
    file["benchmarks"]["live"] = live(full=0.75, suppressed=0.2)
    found = read_costs(written(tmp_path / "results.json", file))
    for electrons in (80, 500):
        assert found.at("full", electrons).receiver == pytest.approx(0.75)
        assert found.at("zero-suppressed", electrons).receiver == pytest.approx(0.3)
        assert found.at("full", electrons).broker == pytest.approx(0.9)


def test_the_tail_is_that_of_the_live_feed_the_worst_of_its_series(tmp_path: Path) -> None:
    file = results(scan(500, ours=OURS_FULL))
    file["benchmarks"]["live"] = live(full=0.75, suppressed=0.2)
    tail = read_costs(written(tmp_path / "results.json", file)).measured.tail
    assert (tail.median_s, tail.p99_s) == (0.5, 1.4)


def test_what_a_scan_of_any_size_takes_is_known_from_two_sizes_and_left_out(tmp_path: Path) -> None:
    """0.5 CPU-seconds of the broker and 0.1 a GB; at 80 electrons, where one size was measured, 0.2 a GB."""
    small, large = (edge**2 * 663_552e-9 for edge in (32, 64))

    def broker(per_gb: float) -> dict[str, Any]:
        return contender(110, receiver=0.3, kafka=per_gb, counter_0=0.04, sink_0=0.02)

    file = results(
        scan(500, edge=64, suppressed=broker(0.1 + 0.5 / large), ours=OURS_FULL),
        scan(500, edge=32, suppressed=broker(0.1 + 0.5 / small), ours=OURS_FULL),
        scan(80, edge=32, suppressed=broker(0.2 + 0.5 / small), ours=OURS_FULL),
    )
    found = read_costs(written(tmp_path / "results.json", file))
    assert found.at("zero-suppressed", 500).broker == pytest.approx(0.1)
    assert found.at("zero-suppressed", 80).broker == pytest.approx(0.2)
    assert found.at("zero-suppressed", 80).counter == pytest.approx(0.04)
    assert found.at("full", 80).broker == pytest.approx(0.9)


def test_a_codec_of_which_only_a_small_scan_was_measured_is_not_passed_over(tmp_path: Path) -> None:
    file = results(scan(500, edge=128, ours=OURS_FULL), scan(500, ours=OURS_FULL, suppressed=OURS_SUPPRESSED))
    assert read_costs(written(tmp_path / "results.json", file)).measured_range("zero-suppressed") == (500, 500)


def test_results_without_scans_that_count_are_refused(tmp_path: Path) -> None:
    for file in (results(), results(scan(500, noise=2, ours=OURS_FULL))):
        with pytest.raises(InputError, match="the results have no end-to-end scans with 5 counts of noise"):
            read_costs(written(tmp_path / "results.json", file))


def test_results_of_another_form_are_refused(tmp_path: Path) -> None:
    file = results({"workload": {"electrons": 500}})
    with pytest.raises(
        InputError, match=r"no table of costs: benchmarks\.end-to-end\.0\.workload\.edge: Field required"
    ):
        read_costs(written(tmp_path / "results.json", file))
