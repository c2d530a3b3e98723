"""What a plan has to warn of: one sentence each, with the number to do something about."""

from __future__ import annotations

import math
from collections.abc import Iterator

from stemstream.plan_costs import Costs
from stemstream.plan_result import FRAME_BYTES, Case, Request
from topics.geometry import MAX_PARTITIONS, SECTORS


def warnings_of(request: Request, costs: Costs, case: Case) -> list[str]:
    """Tell what does not fit in one case, the worst first."""
    return [
        *_losses(request, case),
        *_backlog(request, case),
        *_too_few(case),
        *_processes(request, costs, case),
        *_disk(case),
        *_basis(request, costs, case),
    ]


def _losses(request: Request, case: Case) -> Iterator[str]:
    found = case.closed_form
    if not found.lost_frames:
        return
    takes_s = request.scan_gb / found.intake_gb_s
    if takes_s > request.period_s:
        remedy = f"no buffer is enough, as a scan comes every {request.period_s:.1f} s and takes {takes_s:.1f} s"
    else:
        lacking_gib = found.lost_frames * FRAME_BYTES / 2**30
        remedy = f"--buffer-gib {math.ceil(request.buffer_gib + lacking_gib / (SECTORS / 2))} would hold them"
    yield (
        f"the receivers' buffer overflows: the {found.intake} passes on {found.intake_gb_s:.1f} of {request.gb_s:.1f} "
        f"GB/s, and {found.lost_frames:,} of {request.frames:,} frames of each scan are lost; {remedy}"
    )


def _backlog(request: Request, case: Case) -> Iterator[str]:
    found, link = case.closed_form, case.link
    if not found.stable:
        yield (
            f"no steady state: a scan comes every {request.period_s:.1f} s and keeps the {found.slowest} busy for "
            f"{request.period_s + found.behind_s:.1f} s: each file is {found.behind_s:.1f} s later than the one before"
        )
    if case.simulated.grows == found.stable:
        yield "closed form and simulation do not agree on whether the queues grow from scan to scan"
    if link.gb_s >= request.gb_s:
        return
    if link.decided_by == "bandwidth":
        enough = request.link_gbit * request.gb_s / link.gb_s
        yield f"the link is too thin to keep up with the camera: that takes {enough:,.0f} Gbit/s"
    else:
        yield (
            f"a round trip of {request.rtt_ms:g} ms holds the link below its bandwidth and the camera: more brokers or "
            "counters, or larger fetches and socket buffers, are needed"
        )


def _too_few(case: Case) -> Iterator[str]:
    for name, there, needed in (
        ("--receiver-cores", case.receivers.cores, case.receivers.needed),
        ("--brokers", case.brokers.machines, case.brokers.needed),
        ("--counters", case.counters.cores, case.counters.needed),
    ):
        if there < needed:
            yield f"{name} {there}: {needed} are needed to keep up with what comes, with room to spare"


def _processes(request: Request, costs: Costs, case: Case) -> Iterator[str]:
    one = costs.assumed.receiver_process_cores.value
    if case.receivers.cores_a_sector > one:
        rate = request.frame_rate * one / case.receivers.cores_a_sector
        yield (
            f"a receiver is one process a sector and uses about {one:g} core{'s' if one > 1 else ''}, but a sector "
            f"needs {case.receivers.cores_a_sector:.1f}: as it is built, {rate:,.0f} frames/s are the most"
        )
    if case.sink.cores > 1:
        yield f"the sink is one process and needs {case.sink.cores:.1f} cores: it is slower than the camera"
    elif case.sink.cores > costs.assumed.planned_utilisation.value:
        yield f"the sink is one process, and its core is busy for {case.sink.cores:.0%} of a scan: there is little room"
    if case.counters.partitions > MAX_PARTITIONS:
        yield f"{case.counters.partitions} partitions are more than the {MAX_PARTITIONS} that a scan may have"


def _disk(case: Case) -> Iterator[str]:
    kept = case.retention
    if kept.full_after_hours is not None:
        yield (
            f"scans like this without end fill the brokers' {kept.disk_tb:,.0f} TB in {kept.full_after_hours:.0f} h: "
            f"all copies of {kept.chunks_hours:g} h of chunks are {kept.chunks_tb:,.0f} TB, those of "
            f"{kept.events_hours:g} h of events {kept.events_tb:,.0f} TB"
        )


def _basis(request: Request, costs: Costs, case: Case) -> Iterator[str]:
    if case.extrapolated:
        lowest, highest = costs.measured_range(case.codec)
        yield (
            f"{request.electrons:g} electrons a frame were not measured: the costs are extrapolated from "
            f"{lowest:g} to {highest:g}"
        )
