"""Scans in a row through the stations of the pipeline, as a discrete simulation of the queues. The door to simpy.

A scan goes through in parcels. The receivers cannot hold the camera back: what their buffer has no room for is lost.
The queues behind them are topics, which are as long as the disk. There is no chance in it. All amounts are GB of raw
pixels, so that queues before and after compression can be compared.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Final

import simpy

PARCELS_A_SCAN: Final = 1000
SAMPLES: Final = 400

# A queue that grows from scan to scan by more than this part of a scan is not one that ends.
_GROWTH: Final = 0.002

Steps = Generator[simpy.Event, Any, None]


@dataclass(frozen=True, slots=True)
class Station:
    """What works through a queue: its name, and the GB of raw pixels that it does in a second."""

    name: str
    gb_s: float


@dataclass(frozen=True, slots=True)
class Burst:
    """Scans in a row: how fast the camera is, how much a scan has, how often one comes."""

    gb_s: float
    scan_gb: float
    period_s: float
    scans: int
    chunks_a_scan: int
    """Nothing is smaller than a chunk."""


@dataclass(frozen=True, slots=True)
class QueueLength:
    """GB of raw pixels before a station: at the points of time of the simulation, and the most at any time."""

    station: str
    gb: list[float]
    most_gb: float


@dataclass(frozen=True, slots=True)
class Simulated:
    """What became of the scans.

    ``time_to_file_s`` counts from the last frame of each scan, ``lost_gb`` is what the buffer had no room for, of each
    scan. ``grows``: at the start of the last scan more waited behind the intake than at the start of the one before.
    """

    time_to_file_s: list[float]
    lost_gb: list[float]
    grows: bool
    sample_s: list[float]
    buffer: QueueLength
    queues: list[QueueLength]


@dataclass(slots=True)
class _Queue:
    gb: float = 0.0
    most_gb: float = 0.0
    samples: list[float] = field(default_factory=list)

    def add(self, gb: float) -> None:
        self.gb += gb
        self.most_gb = max(self.most_gb, self.gb)


@dataclass(frozen=True, slots=True)
class _Parcel:
    gb: float
    ends_scan: bool


def simulate(burst: Burst, intake: Station, stations: list[Station], *, buffer_gb: float, tail_s: float) -> Simulated:
    """Send scans through ``intake``, behind a buffer of ``buffer_gb``, and then through the stations.

    A file is there ``tail_s`` after the last parcel of its scan has left the last station.
    """
    return _Line(burst, intake, stations, buffer_gb, tail_s).run()


class _Line:
    """The stations one behind the other, and what happens at them."""

    def __init__(self, burst: Burst, intake: Station, stations: list[Station], buffer_gb: float, tail_s: float) -> None:
        self._burst, self._intake, self._stations = burst, intake, stations
        self._buffer_gb, self._tail_s = buffer_gb, tail_s
        self._env = simpy.Environment()
        self._stores = [simpy.Store(self._env) for _ in range(len(stations) + 2)]
        self._taken_in_at = 0.0  # when the intake will have done all that came so far
        self._most_buffered_gb = 0.0
        self._buffer_samples: list[float] = []
        self._queues = {station.name: _Queue() for station in stations}
        self._sample_times: list[float] = []
        self._scan_ends: list[float] = []
        self._files: list[float] = []
        self._all_files = self._env.event()
        self._lost_gb: list[float] = []
        self._waiting_at_start: list[float] = []

    def run(self) -> Simulated:
        self._env.process(self._camera())
        self._env.process(self._take_in())
        for index, station in enumerate(self._stations):
            self._env.process(self._serve(station, index + 1))
        self._env.process(self._finish_files())
        self._env.process(self._sample())
        self._env.run(until=self._all_files)
        return Simulated(
            time_to_file_s=[file - end for file, end in zip(self._files, self._scan_ends, strict=True)],
            lost_gb=self._lost_gb,
            grows=self._waiting_at_start[-1] > self._waiting_at_start[-2] + _GROWTH * self._burst.scan_gb,
            sample_s=self._sample_times,
            buffer=QueueLength(self._intake.name, self._buffer_samples, self._most_buffered_gb),
            queues=[QueueLength(name, queue.samples, queue.most_gb) for name, queue in self._queues.items()],
        )

    def _camera(self) -> Steps:
        """Fill the receivers' buffer. Within a parcel frames come evenly, and leave while others still come."""
        burst, pace = self._burst, self._intake.gb_s
        parcels = min(burst.chunks_a_scan, PARCELS_A_SCAN)
        parcel_gb = burst.scan_gb / parcels
        parcel_s = parcel_gb / burst.gb_s
        for scan in range(burst.scans):
            yield self._env.timeout(max(0.0, scan * burst.period_s - self._env.now))
            self._waiting_at_start.append(sum(queue.gb for queue in self._queues.values()))
            self._lost_gb.append(0.0)
            for number in range(parcels):
                begin, room_gb = self._env.now, self._buffer_gb - self._buffered_gb()
                kept_gb = min(parcel_gb, room_gb + pace * parcel_s)
                self._lost_gb[-1] += parcel_gb - kept_gb
                yield self._env.timeout(parcel_s)
                self._taken_in_at = max(self._env.now, max(self._taken_in_at, begin) + kept_gb / pace)
                self._most_buffered_gb = max(self._most_buffered_gb, self._buffered_gb())
                parcel = _Parcel(kept_gb, ends_scan=number == parcels - 1)
                yield self._stores[0].put((self._taken_in_at, parcel))
            self._scan_ends.append(self._env.now)

    def _buffered_gb(self) -> float:
        return max(0.0, self._taken_in_at - self._env.now) * self._intake.gb_s

    def _take_in(self) -> Steps:
        while True:
            taken_in_at, parcel = yield self._stores[0].get()
            yield self._env.timeout(max(0.0, taken_in_at - self._env.now))
            yield self._pass_on(1, parcel)

    def _serve(self, station: Station, place: int) -> Steps:
        while True:
            parcel = yield self._stores[place].get()
            yield self._env.timeout(parcel.gb / station.gb_s)
            self._queues[station.name].add(-parcel.gb)
            yield self._pass_on(place + 1, parcel)

    def _pass_on(self, place: int, parcel: _Parcel) -> simpy.Event:
        if place <= len(self._stations):
            self._queues[self._stations[place - 1].name].add(parcel.gb)
        return self._stores[place].put(parcel)

    def _finish_files(self) -> Steps:
        while len(self._files) < self._burst.scans:
            parcel = yield self._stores[-1].get()
            if parcel.ends_scan:
                self._files.append(self._env.now + self._tail_s)
        yield self._env.timeout(self._tail_s)
        self._all_files.succeed()

    def _sample(self) -> Steps:
        slowest = min(station.gb_s for station in (self._intake, *self._stations))
        scans = self._burst.scans
        interval = max(scans * self._burst.period_s, scans * self._burst.scan_gb / slowest) / SAMPLES
        while True:
            self._sample_times.append(round(self._env.now, 3))
            self._buffer_samples.append(round(self._buffered_gb(), 3))
            for queue in self._queues.values():
                queue.samples.append(round(queue.gb, 3))
            yield self._env.timeout(interval)
