"""The page of the performance has the tables of the results, and says honestly what they reach."""

from __future__ import annotations

import json
from typing import Any

from benchmarks import report
from benchmarks.report_targets import Target, targets
from benchmarks.workloads import FILE_WAY, OURS, SOCKET_WAY, SUPPRESSED, TWO_COUNTERS


def test_the_page_has_the_tables_of_the_results() -> None:
    results = json.loads(report.RESULTS.read_text(encoding="utf-8"))
    text = report.PAGE.read_text(encoding="utf-8")
    assert not results["quick"]
    assert report.filled(text, results) == text, "python -m benchmarks.report makes the tables again"


def test_a_table_without_results_stays_as_it_is() -> None:
    text = "<!-- measured: tail -->\n\n| old |\n\n<!-- end -->"
    assert report.filled(text, {"benchmarks": {}}) == text


def test_a_target_is_met_at_its_limit_and_not_beyond() -> None:
    assert Target("speed", 4, at_least=True, reached=4.0).met
    assert not Target("speed", 4, at_least=True, reached=3.99).met
    assert Target("CPU", 2, at_least=False, reached=2.0).met
    assert not Target("CPU", 2, at_least=False, reached=2.01).met


def contender(frames_per_second: list[float], cpu: float, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    total = {"median": cpu, "runs": [cpu] * len(frames_per_second)}
    return {"frames_per_second": {"runs": frames_per_second}, "cpu_seconds_per_gb": {"total": total}, **more}


def results_of(electrons: int, edge: int = 64) -> dict[str, Any]:
    contenders = {
        OURS: contender([800, 600, 100], 2.5),
        TWO_COUNTERS: contender([800, 600, 100], 3.0),
        SUPPRESSED: contender([4000, 4000, 4000], 0.3, compression_ratio={"median": 120}),
        FILE_WAY: contender([100, 100, 50], 12, stage_frames_per_second={"count": {"runs": [200, 200, 100]}}),
        SOCKET_WAY: contender([200, 150, 100], 10),
    }
    workload = {"electrons": electrons, "edge": edge, "noise": 5}
    return {"benchmarks": {"end-to-end": [{"workload": workload, "contenders": contenders}]}}


def test_speeds_are_compared_round_by_round() -> None:
    reached = {target.what: target for target in targets(results_of(500))}
    assert reached["full frames, 500 electrons: frames/s of the file way's counting step"].reached == 3
    assert reached["full frames, 500 electrons: frames/s of the file way as a whole"].reached == 6
    assert reached["full frames, 500 electrons: frames/s of the socket way"].reached == 4
    assert reached["zero-suppressed, 500 electrons: frames/s of the file way's counting step"].reached == 20
    assert reached["CPU of a scan with two counters, of that with one"].reached == 1.2
    assert {what for what, target in reached.items() if not target.met} == {
        "full frames, 500 electrons: frames/s of the file way's counting step",
        "full frames, 500 electrons: CPU seconds per raw GB",
        "CPU of a scan with two counters, of that with one",
    }


def test_only_scans_of_the_size_asked_for_are_compared_with_targets() -> None:
    assert list(targets(results_of(500, edge=24))) == []


def test_tails_and_peak_memory_are_compared_with_targets() -> None:
    def series(edge: int, median: float, p99: float, peak: float) -> dict[str, Any]:
        latency = {"median": median, "p99": p99}
        return {"edge": edge, "scans": 5, "latency_seconds": latency, "peak_megabytes": {"counter-0": peak}}

    live = {"tail": {"series": [series(64, 0.3, 1.6, 400), series(128, 0.6, 9, 500)]}}
    met = {target.what: target.met for target in targets({"benchmarks": {"live": live}})}
    assert met == {
        "tail of 5 scans of 64²: 99th percentile": False,
        "tail of 5 scans of 64²: median": True,
        "tail of 5 scans of 128²: median": False,
        "peak memory of counter-0, largest of smallest over the scan sizes": False,
    }
