"""Cores, brokers, disks and link that a camera needs, and when the file is there, from what each stage costs.

Each placement with each codec is a case. The closed form takes the pipeline for water in pipes: a scan needs as long as
its slowest station, and the tail comes after that. :mod:`stemstream.plan_queues` checks it by simulation. GB are 10^9
bytes of raw pixels unless something else is named.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from producers.standing import FRAMES_PER_CHUNK
from service.errors import InputError
from service.kafka import PUBLISH_QUEUE_KIB
from stemstream.plan_costs import CODECS, Assumed, Codec, Costs, StageCosts
from stemstream.plan_queues import Burst, Station, simulate
from stemstream.plan_result import (
    FRAME_BYTES,
    PLACEMENTS,
    Brokers,
    Case,
    ClosedForm,
    Counters,
    Link,
    Load,
    Placement,
    Plan,
    Receivers,
    Request,
    Retention,
    Sink,
    Tail,
)
from stemstream.plan_warnings import warnings_of
from topics.geometry import SECTORS
from topics.registry import DEFAULT_PARTITIONS, EVENTS, HOUR_MS, RAW_TOPICS, topic

ELECTRON_BYTES: Final = 4
# Measured on encoded messages of 16 frames and on a counted file of 4,096.
EVENT_BYTES_A_FRAME: Final = 55
FILE_BYTES_A_FRAME: Final = 64

SIMULATED_SCANS: Final = 4
_BITS: Final = 8
_MIB_GB: Final = 2**20 / 1e9


def make_plan(request: Request, costs: Costs) -> Plan:
    """Compute and simulate all cases.

    Raises
    ------
    InputError
        There are fewer brokers than copies, or a codec has no costs.
    """
    cases = [plan_case(request, costs, placement, codec) for placement in PLACEMENTS for codec in CODECS]
    return Plan(request, request.gb_s, request.scan_gb, request.burst_s, request.period_s, costs, cases)


def plan_case(request: Request, costs: Costs, placement: Placement, codec: Codec) -> Case:
    """Compute and simulate one case; raises as :func:`make_plan` does."""
    if request.brokers is not None and request.brokers < request.replication:
        raise InputError(f"--brokers {request.brokers}: {request.replication} copies need as many (--replication)")
    stage = costs.at(codec, request.electrons)
    sizing = _Sizing(request, placement, costs.assumed, _load(request, stage, costs.assumed))
    brokers = sizing.brokers()
    counters = sizing.counters(brokers)
    receivers = sizing.receivers()
    link = sizing.link(brokers, counters)
    sink = sizing.sink()

    intake, stations = _stations(
        placement,
        {
            "receivers": receivers.gb_s,
            "broker": brokers.gb_s,
            "link": link.gb_s,
            "counters": counters.gb_s,
            "sink": sink.gb_s,
        },
    )
    buffer_gb = receivers.waiting_gb + (0.0 if intake.name == "receivers" else receivers.queue_gb)
    tail = sizing.tail(costs.measured.tail.median_s, costs.measured.tail.p99_s)
    computed = _closed_form(request, intake, stations, link, buffer_gb=buffer_gb, tail=tail)
    burst = Burst(
        gb_s=request.gb_s,
        scan_gb=request.scan_gb,
        period_s=request.period_s,
        scans=SIMULATED_SCANS,
        chunks_a_scan=-(-request.frames // FRAMES_PER_CHUNK),
    )
    lowest, highest = costs.measured_range(codec)
    case = Case(
        placement=placement.name,
        codec=codec,
        costs=stage,
        extrapolated=not lowest <= request.electrons <= highest,
        load=sizing.load,
        receivers=receivers,
        brokers=brokers,
        counters=counters,
        sink=sink,
        link=link,
        retention=sizing.retention(brokers),
        closed_form=computed,
        simulated=simulate(burst, intake, stations, buffer_gb=buffer_gb, tail_s=tail.total_s),
    )
    case.warnings.extend(warnings_of(request, costs, case))
    return case


def _load(request: Request, stage: StageCosts, assumed: Assumed) -> Load:
    """Add TLS and copies: R copies are written, and read R times, by R - 1 brokers and once by the counters."""
    frames = 1e9 / FRAME_BYTES
    electrons = ELECTRON_BYTES * request.electrons
    message_gb, event_gb = 1 / stage.traffic_ratio, frames * (electrons + EVENT_BYTES_A_FRAME) / 1e9
    client, broker = assumed.tls_client_s_per_gb.value, assumed.tls_broker_s_per_gb.value
    tls = {
        "receiver": client * message_gb,
        "broker": broker * 2 * request.replication * (message_gb + event_gb),
        "counter": client * (message_gb + event_gb),
        "sink": client * event_gb,
    }
    tls = tls if request.tls else dict.fromkeys(tls, 0.0)
    seconds = {
        "receiver_s": stage.receiver + tls["receiver"],
        "broker_s": stage.broker * request.replication + tls["broker"],
        "counter_s": stage.counter + tls["counter"],
        "sink_s": stage.sink + tls["sink"],
    }
    return Load(
        message_gb=message_gb,
        event_gb=event_gb,
        file_gb=frames * (electrons + FILE_BYTES_A_FRAME) / 1e9,
        **seconds,
        total_s=sum(seconds.values()),
        tls_s=sum(tls.values()),
    )


@dataclass(frozen=True, slots=True)
class _Sizing:
    """The stages of one case, each as large as it has to be, or as it is said to be."""

    request: Request
    placement: Placement
    assumed: Assumed
    load: Load

    def receivers(self) -> Receivers:
        load, request = self.load, self.request
        needed = math.ceil(self._planned(request.gb_s * load.receiver_s))
        cores = request.receiver_cores or needed
        return Receivers(
            cores=cores,
            needed=needed,
            cores_a_sector=request.gb_s * load.receiver_s / SECTORS,
            # Half of --buffer-gib is for frames that wait; the other half is for chunks that wait for late frames.
            waiting_gb=SECTORS * request.buffer_gib * 2**30 / 2 / 1e9,
            queue_gb=SECTORS * PUBLISH_QUEUE_KIB * 1024 / 1e9 / load.message_gb,
            gb_s=cores / load.receiver_s,
        )

    def brokers(self) -> Brokers:
        rate = self._rate_behind_link() if self.placement.link_before == "broker" else self.request.gb_s
        load, assumed, copies = self.load, self.assumed, self.request.replication
        written_gb = copies * (load.message_gb + load.event_gb)
        # What one machine can take of raw pixels: GB/s.
        limits = {
            "cores": assumed.broker_cores.value / load.broker_s,
            "network": assumed.broker_network_gbit.value / _BITS / written_gb,
            "disk": assumed.broker_disk_gb_s.value / written_gb,
        }
        machines = {name: self._planned(rate / limit) for name, limit in limits.items()} | {"copies": float(copies)}
        decided_by = max(machines, key=lambda name: machines[name])
        needed = math.ceil(machines[decided_by])
        number = self.request.brokers or needed
        return Brokers(
            machines=number,
            needed=needed,
            decided_by=decided_by,
            busy_cores=rate * load.broker_s,
            network_gbit=rate * written_gb * _BITS / number,
            disk_gb_s=rate * written_gb / number,
            gb_s=number * min(limits.values()),
        )

    def counters(self, brokers: Brokers) -> Counters:
        rate = self.request.gb_s if self.placement.link_before == "sink" else self._rate_behind_link()
        wanted = {"cores": self._planned(rate * self.load.counter_s), "round trip": 0.0}
        if self.placement.link_before == "counters":
            wanted["round trip"] = rate * self._crossing_gb() / self._window_gb_s(_connections_of_a_counter(brokers))
        decided_by = max(wanted, key=lambda name: wanted[name])
        needed = math.ceil(wanted[decided_by])
        cores = self.request.counters or needed
        mean_rate = self.request.scan_gb / self.request.period_s
        sets = math.ceil(max(DEFAULT_PARTITIONS, brokers.machines) / cores)  # so that no broker is without a leader
        return Counters(
            cores=cores,
            needed=needed,
            decided_by=decided_by,
            least=min(needed, math.ceil(self._planned(mean_rate * self.load.counter_s))),
            partitions=cores * sets,
            gb_s=cores / self.load.counter_s,
        )

    def link(self, brokers: Brokers, counters: Counters) -> Link:
        connections = {
            "broker": SECTORS * brokers.machines,  # every receiver publishes to every broker
            "counters": counters.cores * _connections_of_a_counter(brokers),
            "sink": brokers.machines,
        }[self.placement.link_before]
        crossing_gb = self._crossing_gb()
        limits = {"bandwidth": self._bandwidth_gb_s(), "round trip": self._window_gb_s(connections) / crossing_gb}
        decided_by = min(limits, key=lambda name: limits[name])
        return Link(self.request.scan_gb * crossing_gb, decided_by, limits[decided_by])

    def sink(self) -> Sink:
        return Sink(cores=self.request.gb_s * self.load.sink_s, gb_s=1 / self.load.sink_s)

    def retention(self, brokers: Brokers) -> Retention:
        chunks_hours = topic(RAW_TOPICS[0]).retention_ms / HOUR_MS
        events_hours = topic(EVENTS).retention_ms / HOUR_MS
        tb_an_hour = self.request.scan_gb / 1000 * 3600 / self.request.period_s * self.request.replication
        chunks_tb = chunks_hours * tb_an_hour * self.load.message_gb
        events_tb = events_hours * tb_an_hour * self.load.event_gb
        disk_tb = brokers.machines * self.assumed.broker_disk_tb.value
        return Retention(
            chunks_hours=chunks_hours,
            chunks_tb=chunks_tb,
            events_hours=events_hours,
            events_tb=events_tb,
            disk_tb=disk_tb,
            full_after_hours=_full_after(disk_tb, {chunks_hours: chunks_tb, events_hours: events_tb}),
        )

    def tail(self, median_s: float, p99_s: float) -> Tail:
        parts = {
            "round_trips_s": self.placement.round_trips * self.request.rtt_ms / 1000,
            "fsync_s": self.request.scan_gb * self.load.file_gb / self.assumed.sink_disk_gb_s.value,
            "chunk_s": min(FRAMES_PER_CHUNK, self.request.frames) / self.request.frame_rate,
        }
        total_s = median_s + sum(parts.values())
        return Tail(measured_s=median_s, measured_p99_s=p99_s, **parts, total_s=total_s)

    def _planned(self, busy: float) -> float:
        return busy / self.assumed.planned_utilisation.value

    def _rate_behind_link(self) -> float:
        return min(self.request.gb_s, self._bandwidth_gb_s())

    def _crossing_gb(self) -> float:
        """GB that cross the link in the direction of more, for a GB of raw pixels.

        A sink that is remote fetches the events from the broker at the microscope.
        """
        chunks = 0.0 if self.placement.link_before == "sink" else self.load.message_gb
        return chunks + (0.0 if self.placement.link_before == "broker" else self.load.event_gb)

    def _bandwidth_gb_s(self) -> float:
        return self.request.link_gbit / _BITS * self.assumed.link_efficiency.value / self._crossing_gb()

    def _window_gb_s(self, connections: int) -> float:
        """GB/s on the link when each connection has one window under way a round trip."""
        if not self.request.rtt_ms:
            return math.inf
        return connections * self.assumed.window_mib.value * _MIB_GB / (self.request.rtt_ms / 1000)


def _full_after(disk_tb: float, kept_tb: dict[float, float]) -> float | None:
    """Hours until the disks are full. ``kept_tb``: by hours of retention, what is kept in the end."""
    times = [0.0, *sorted(kept_tb)]
    filled = [sum(tb * min(time, hours) / hours for hours, tb in kept_tb.items()) for time in times]
    return float(np.interp(disk_tb, filled, times)) if filled[-1] > disk_tb else None


def _connections_of_a_counter(brokers: Brokers) -> int:
    """Brokers that a counter fetches from: it has at least one partition of each raw topic."""
    return min(SECTORS, brokers.machines)


def _stations(placement: Placement, gb_s: dict[str, float]) -> tuple[Station, list[Station]]:
    """What the receivers' buffer waits for, which is the slowest up to the broker, and the stations behind it."""
    order = ["receivers", "broker", "counters", "sink"]
    order.insert(order.index(placement.link_before), "link")
    stations = [Station(name, gb_s[name]) for name in order]
    behind = order.index("broker") + 1
    return min(stations[:behind], key=lambda station: station.gb_s), stations[behind:]


def _closed_form(
    request: Request, intake: Station, stations: list[Station], link: Link, *, buffer_gb: float, tail: Tail
) -> ClosedForm:
    """Compute the steady state of the intake, which loses what does not fit, and the first scan's of what is behind.

    The buffer holds what the intake cannot take while the camera scans; but no buffer helps against scans that come
    faster than the intake takes them.
    """
    excess_gb = max(0.0, (request.gb_s - intake.gb_s) * request.burst_s)
    lost_gb = max(0.0, excess_gb - buffer_gb, request.scan_gb - intake.gb_s * request.period_s)
    kept_gb = request.scan_gb - lost_gb
    slowest = min(stations, key=lambda station: station.gb_s)
    waits_s = {
        "camera": 0.0,
        intake.name: (buffer_gb if lost_gb else excess_gb) / intake.gb_s,
        slowest.name: kept_gb / slowest.gb_s - request.burst_s,
    }
    longest = max(waits_s, key=lambda name: waits_s[name])
    time_to_file_s = waits_s[longest] + tail.total_s
    behind_s = max(0.0, kept_gb / slowest.gb_s - request.period_s)
    return ClosedForm(
        time_to_file_s=time_to_file_s,
        time_to_file_p99_s=time_to_file_s - tail.measured_s + tail.measured_p99_s,
        slowest=longest,
        stable=not behind_s,
        behind_s=behind_s,
        intake=intake.name,
        intake_gb_s=intake.gb_s,
        buffer_gb=buffer_gb,
        link_utilisation=kept_gb / link.gb_s / request.period_s,
        lost_frames=round(lost_gb * 1e9 / FRAME_BYTES),
        tail=tail,
    )
