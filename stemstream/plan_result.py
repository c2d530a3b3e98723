"""What ``stemstream plan`` is asked and answers, as plain data. GB are 10^9 bytes of raw pixels unless named."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from stemstream.plan_costs import Codec, Costs, StageCosts
from stemstream.plan_queues import Simulated
from topics.geometry import FRAME_HEIGHT, FRAME_WIDTH

FRAME_BYTES: Final = FRAME_HEIGHT * FRAME_WIDTH * 2

PlacementName = Literal["counters-remote", "all-remote", "counters-edge"]


@dataclass(frozen=True, slots=True)
class Request:
    """The camera, the link and what is wanted of the pipeline. None: as many as are needed."""

    frame_rate: float
    width: int
    height: int
    electrons: float
    pause_s: float
    link_gbit: float
    rtt_ms: float
    replication: int
    tls: bool
    buffer_gib: float
    receiver_cores: int | None = None
    brokers: int | None = None
    counters: int | None = None

    @property
    def frames(self) -> int:
        """Frames of a scan."""
        return self.width * self.height

    @property
    def gb_s(self) -> float:
        """Raw pixels while the camera scans, GB/s."""
        return self.frame_rate * FRAME_BYTES / 1e9

    @property
    def scan_gb(self) -> float:
        """Raw pixels of a scan."""
        return self.frames * FRAME_BYTES / 1e9

    @property
    def burst_s(self) -> float:
        """How long the camera scans."""
        return self.frames / self.frame_rate

    @property
    def period_s(self) -> float:
        """From the start of a scan to that of the next."""
        return self.burst_s + self.pause_s


@dataclass(frozen=True, slots=True)
class Placement:
    """Which stages stand at the microscope.

    ``link_before`` is the first stage beyond the link. ``round_trips`` are those between the last frame and the file: a
    chunk fetched (1.5: a fetch may have just gone out), a transaction (4: message, partitions, offsets, end), an event
    fetched (1.5), a chunk published (1).
    """

    name: PlacementName
    where: str
    link_before: Literal["broker", "counters", "sink"]
    round_trips: float


PLACEMENTS: Final = (
    Placement("counters-remote", "receivers and broker at the microscope; counters and sink remote", "counters", 7),
    Placement("all-remote", "only the receivers at the microscope; broker, counters and sink remote", "broker", 1),
    Placement("counters-edge", "receivers, broker and counters at the microscope; the sink remote", "sink", 1.5),
)


@dataclass(frozen=True, slots=True)
class Load:
    """What a GB of raw pixels is at each stage: messages in GB, and CPU-seconds, with TLS if it is wanted."""

    message_gb: float
    event_gb: float
    file_gb: float
    receiver_s: float
    broker_s: float
    counter_s: float
    sink_s: float
    total_s: float
    tls_s: float
    """How much of the total is TLS."""


@dataclass(frozen=True, slots=True)
class Receivers:
    """Cores that receivers have and need, and what these do."""

    cores: int
    needed: int
    cores_a_sector: float
    """Busy cores of the process of one sector at the camera's rate."""
    waiting_gb: float
    """Room for frames that wait, in all receivers."""
    queue_gb: float
    """Raw pixels whose chunks fit into the queues of the Kafka clients, when the link or the broker is slow."""
    gb_s: float


@dataclass(frozen=True, slots=True)
class Brokers:
    """Broker machines, what each of them has to do while the camera scans, and what they can take."""

    machines: int
    needed: int
    decided_by: str
    """``cores``, ``network``, ``disk``, or ``copies``: as many as there are copies."""
    busy_cores: float
    """Of all machines together."""
    network_gbit: float
    """Of each machine, in each direction."""
    disk_gb_s: float
    """Written by each machine, GB/s on the disk."""
    gb_s: float


@dataclass(frozen=True, slots=True)
class Counters:
    """Counter processes of one core each. ``least``: so few are done with a scan when the next one begins."""

    cores: int
    needed: int
    decided_by: str
    """``cores``, or ``round trip``: of a fetch."""
    least: int
    partitions: int
    gb_s: float


@dataclass(frozen=True, slots=True)
class Sink:
    """The one active sink: busy cores at the camera's rate, and how fast one core is."""

    cores: float
    gb_s: float


@dataclass(frozen=True, slots=True)
class Link:
    """The link to the remote site, in the direction of more."""

    crossing_gb: float
    """Bytes of a scan on it."""
    decided_by: str
    """``bandwidth`` or ``round trip``."""
    gb_s: float
    """Raw pixels for which it takes across what crosses."""


@dataclass(frozen=True, slots=True)
class Retention:
    """Disk space for what topics keep, all copies, TB, if scans come like this without end."""

    chunks_hours: float
    chunks_tb: float
    events_hours: float
    events_tb: float
    disk_tb: float
    """What the brokers' disks have together."""
    full_after_hours: float | None
    """When the disks are full; None: never, topics forget in time."""


@dataclass(frozen=True, slots=True)
class Tail:
    """From the last bytes through the slowest station to the file, in s."""

    measured_s: float
    measured_p99_s: float
    round_trips_s: float
    fsync_s: float
    chunk_s: float
    """Until the last chunk is full."""
    total_s: float
    """With the median of what was measured."""


@dataclass(frozen=True, slots=True)
class ClosedForm:
    """From the last frame of a scan to its file: max(0, scan / slowest station - burst) + tail.

    What is lost and what waits in the buffer is that of a scan after many; without a steady state behind the broker the
    time to file is that of the first scan.
    """

    time_to_file_s: float
    time_to_file_p99_s: float
    slowest: str
    """The station that the file waits for; ``camera``: none, all keep up."""
    stable: bool
    """Whether the queues behind the broker do not grow from scan to scan."""
    behind_s: float
    """By how much each scan is later than the one before; 0 in a steady state."""
    intake: str
    """The slowest up to the broker, for which the receivers' buffer waits."""
    intake_gb_s: float
    buffer_gb: float
    link_utilisation: float
    """Mean over scan and pause; above 1 the link is too thin."""
    lost_frames: int
    """Of each scan, because the receivers' buffer was full."""
    tail: Tail


@dataclass(frozen=True, slots=True)
class Case:
    """One placement with one codec."""

    placement: PlacementName
    codec: Codec
    costs: StageCosts
    extrapolated: bool
    """The density is none of those between the lowest and the highest measured."""
    load: Load
    receivers: Receivers
    brokers: Brokers
    counters: Counters
    sink: Sink
    link: Link
    retention: Retention
    closed_form: ClosedForm
    simulated: Simulated
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Plan:
    """All cases, and what they rest on."""

    request: Request
    gb_s: float
    scan_gb: float
    burst_s: float
    period_s: float
    costs: Costs
    cases: list[Case]
    pictures: list[str] = field(default_factory=list)
