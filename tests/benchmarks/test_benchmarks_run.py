"""The benchmarks are alive: every piece runs on tiny scans. Nothing is said of how fast anything is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import chunk_codecs, end_to_end, feed, limits, report, report_targets, stages
from benchmarks.context import Context
from benchmarks.spread import quantile, summarise
from benchmarks.workloads import (
    FILE_WAY,
    FULL,
    OURS,
    QUICK,
    SOCKET_WAY,
    SUPPRESSED,
    TWO_COUNTERS,
    EndToEnd,
    Plan,
    Scan,
    Series,
)

TINY = Plan(
    repeats=1,
    warm_ups=0,
    end_to_end=(EndToEnd(Scan(500, edge=8), (OURS, TWO_COUNTERS, SUPPRESSED, FILE_WAY, SOCKET_WAY)),),
    feed=Scan(500, edge=8),
    feed_rates=(100,),
    suppressed_rates=(100,),
    tails=(Series(8, 2),),
    codec_noises=(5,),
    codec_electrons=(500,),
    chunk_sizes=(16,),
    stage_electrons=(500,),
    limit_megabytes=20,
    recall_frames=40,
)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(TINY, tmp_path)


def test_the_spread_of_runs_stands_in_the_place_of_each_figure() -> None:
    runs = [{"a": value, "by": {"b": 2.0 * value}, "complete": value < 3} for value in (3, 1, 2)]
    assert summarise(runs) == {
        "a": {"median": 2, "min": 1, "max": 3, "runs": [3, 1, 2]},
        "by": {"b": {"median": 4.0, "min": 2.0, "max": 6.0, "runs": [6.0, 2.0, 4.0]}},
        "complete": False,
    }


def test_a_quantile_is_a_value_that_was_measured() -> None:
    values = list(range(1, 101))
    assert (quantile(values, 0.5), quantile(values, 0.99), quantile(values, 1.0)) == (50, 99, 100)
    assert quantile([7.0], 0.99) == 7.0


def test_five_runs_at_least_are_measured() -> None:
    assert FULL.repeats >= 5
    assert QUICK.repeats < FULL.repeats


def test_stages_and_codecs_are_measured_without_a_broker(context: Context) -> None:
    full, suppressed = stages.measure(context)
    assert {name.split(":")[0] for name in full["cpu_seconds_per_gb"]} == {"receiver", "counter", "sink"}
    assert set(suppressed["cpu_seconds_per_gb"]) == set(full["cpu_seconds_per_gb"])
    in_use = [each for each in chunk_codecs.measure(context) if each["codec"] == chunk_codecs.IN_USE]
    assert all(each["ratio"]["median"] > 1 for each in in_use)


@pytest.mark.timeout(300)
def test_scans_are_counted_end_to_end_by_this_project_and_its_peers(context: Context) -> None:
    [measured] = end_to_end.measure(context)
    contenders = measured["contenders"]
    assert set(contenders) == {OURS, TWO_COUNTERS, SUPPRESSED, FILE_WAY, SOCKET_WAY}
    counted = [figures["electrons_per_frame"]["median"] for figures in contenders.values()]
    assert max(counted) < 1.02 * min(counted)
    ours = contenders[TWO_COUNTERS]["cpu_seconds_per_gb"]
    assert {"receiver", "kafka", "counter-0", "counter-1", "sink-0", "supervisor", "total"} == set(ours)
    results: dict[str, Any] = {"benchmarks": {"end-to-end": [measured]}}
    assert len(list(report_targets.targets(results))) == 0  # which are about larger scans
    assert report.throughput(results).count("\n") == 1 + len(contenders)
    assert report.ratios(results).count("\n") == 4
    assert report.cpu(results).count("\n") == 4


@pytest.mark.timeout(300)
def test_the_live_feed_and_the_broker_alone_are_measured(context: Context) -> None:
    measured = feed.measure(context)
    assert measured["feed"]["at_rate"]["complete"]
    assert measured["tail"]["series"][0]["latency_seconds"]["p99"] > 0
    [broker] = limits.measure(context)["broker"]
    assert broker["produce"]["megabytes_per_second"]["median"] > 0
    assert broker["consume"]["broker_cpu_seconds_per_gb"]["median"] >= 0
