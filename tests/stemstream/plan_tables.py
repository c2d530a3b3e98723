"""A camera and a table of costs with round numbers, for which a plan can be computed by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from stemstream.plan import plan_case
from stemstream.plan_costs import CODECS, Assumed, Assumption, Codec, Costs, Measured, StageCosts, Tail, read_costs
from stemstream.plan_result import FRAME_BYTES, PLACEMENTS, Case, Request

ASSUMED = {
    "planned_utilisation": 0.5,
    "receiver_process_cores": 1,
    "broker_cores": 10,
    "broker_network_gbit": 80,
    "broker_disk_gb_s": 2,
    "broker_disk_tb": 10,
    "link_efficiency": 1,
    "window_mib": 1,
    "tls_client_s_per_gb": 0.4,
    "tls_broker_s_per_gb": 0.5,
    "sink_disk_gb_s": 0.5,
}

# 10 GB/s; 66.3552 GB in 6.63552 s, then 13.36448 s of pause: a scan every 20 s. 0.01 GB of events a GB.
REQUEST = Request(
    frame_rate=10e9 / FRAME_BYTES,
    width=400,
    height=250,
    electrons=1645.13,
    pause_s=13.36448,
    link_gbit=100,
    rtt_ms=0,
    replication=2,
    tls=False,
    buffer_gib=0.5,
)


def row(codec: Codec, **changes: float) -> StageCosts:
    """Costs of a codec: four bytes become one of full chunks, a hundred one of zero-suppressed ones."""
    costs = {"receiver": 0.5, "broker": 1.0, "counter": 1.0, "sink": 0.05}
    ratio = 4 if codec == "full" else 100
    return StageCosts(codec=codec, **{"electrons": 1645.13, "traffic_ratio": ratio, **costs, **changes})


def costs(*rows: StageCosts, **assumed: float) -> Costs:
    """Give a table of these rows, by default one a codec, and these assumptions."""
    values = {name: Assumption(value=value, reason="a round number") for name, value in (ASSUMED | assumed).items()}
    measured = Measured(
        date="2026-01-01",
        commit="abc",
        machine="a machine",
        how="by hand",
        tail=Tail(median_s=0.5, p99_s=1.5),
        stages=rows or tuple(row(codec) for codec in CODECS),
    )
    return Costs(measured=measured, assumed=Assumed(**values))


def camera_costs() -> Costs:
    """Give a table as the camera's may once be, with the built-in assumptions. The built-in costs change."""
    sizes = {
        "full": {80: (3, 0.86, 0.01), 500: (3, 0.89, 0.015), 2000: (3, 1.17, 0.03)},
        "zero-suppressed": {80: (375, 0.01, 0.01), 500: (109, 0.026, 0.015), 2000: (33, 0.081, 0.03)},
    }
    rows = [
        StageCosts(
            codec=codec,
            electrons=electrons,
            traffic_ratio=ratio,
            receiver=0.55 if codec == "full" else 0.3,
            broker=2.9 / ratio,
            counter=counter,
            sink=sink,
        )
        for codec in CODECS
        for electrons, (ratio, counter, sink) in sizes[codec].items()
    ]
    return Costs(measured=costs(*rows).measured, assumed=read_costs().assumed)


def case(placement: str, codec: Codec = "full", table: Costs | None = None, **changes: Any) -> Case:  # noqa: ANN401
    """One case of a plan for the camera, with changes to what is asked."""
    place = next(found for found in PLACEMENTS if found.name == placement)
    return plan_case(replace(REQUEST, **changes), table or costs(), place, codec)
