"""What is measured: scans, and how often. Nothing here says how."""

from dataclasses import dataclass

DARK_COUNTS = 12.0  # mean offset of the simulated detector
XRAY = 2000.0
USUAL_NOISE = 5.0
FRAMES_PER_CHUNK = 16  # as the receiver makes chunks


@dataclass(frozen=True)
class Scan:
    """A simulated scan of ``edge`` x ``edge`` positions; ``noise``: standard deviation of the read noise, counts."""

    electrons: int
    edge: int = 64
    noise: float = USUAL_NOISE

    @property
    def frames(self) -> int:
        return self.edge**2

    @property
    def background(self) -> float:
        """Threshold in counts: offset and 4.5 standard deviations of the noise, as automatic thresholds would be."""
        return DARK_COUNTS + 4.5 * self.noise

    @property
    def floor(self) -> int:
        """What zero suppression drops, in counts: offset and 3 standard deviations."""
        return round(DARK_COUNTS + 3 * self.noise)

    @property
    def name(self) -> str:
        return f"{self.electrons} electrons, {self.edge}x{self.edge}, noise {self.noise:g}"


@dataclass(frozen=True)
class EndToEnd:
    """A scan from raw files to the counted file, by these contenders in turn."""

    scan: Scan
    contenders: tuple[str, ...]


@dataclass(frozen=True)
class Series:
    """Scans of the live feed one after the other: how long after the last frame is the file there?"""

    edge: int
    scans: int
    electrons: int = 500


@dataclass(frozen=True)
class Plan:
    """All that one run of the benchmarks measures: ``repeats`` timed runs after ``warm_ups`` that are not counted.

    ``feed_rates`` are tried one after the other until frames are lost, in frames/s; ``suppressed_rates`` likewise with
    zero suppression.
    """

    repeats: int
    warm_ups: int
    end_to_end: tuple[EndToEnd, ...]
    feed: Scan
    feed_rates: tuple[float, ...]
    suppressed_rates: tuple[float, ...]
    tails: tuple[Series, ...]
    codec_noises: tuple[float, ...]
    codec_electrons: tuple[int, ...]
    chunk_sizes: tuple[int, ...]
    stage_electrons: tuple[int, ...]
    limit_megabytes: int
    recall_frames: int


OURS = "stemstream"
TWO_COUNTERS = "stemstream, 2 counters"
SUPPRESSED = "stemstream, zero-suppressed"
FILE_WAY = "file way"
SOCKET_WAY = "socket way"

FULL = Plan(
    repeats=5,
    warm_ups=1,
    end_to_end=(
        EndToEnd(Scan(80), (OURS, SUPPRESSED)),
        EndToEnd(Scan(100), (OURS, SUPPRESSED, FILE_WAY, SOCKET_WAY)),
        EndToEnd(Scan(500), (OURS, TWO_COUNTERS, SUPPRESSED, FILE_WAY, SOCKET_WAY)),
        EndToEnd(Scan(2000), (OURS, SUPPRESSED, FILE_WAY, SOCKET_WAY)),
        EndToEnd(Scan(500, edge=128), (OURS, SUPPRESSED)),
        EndToEnd(Scan(500, noise=2), (OURS,)),
        EndToEnd(Scan(500, noise=10), (OURS,)),
    ),
    feed=Scan(500),
    feed_rates=tuple(200 * 1.25**step for step in range(16)),
    suppressed_rates=tuple(500 * 1.25**step for step in range(16)),
    tails=(Series(64, 100), Series(128, 5), Series(256, 5)),
    codec_noises=(2, 5, 10),
    codec_electrons=(80, 500, 2000),
    chunk_sizes=(4, 8, 16, 32, 64),
    stage_electrons=(80, 100, 500, 2000),
    limit_megabytes=2000,
    recall_frames=400,
)

QUICK = Plan(
    repeats=1,
    warm_ups=0,
    end_to_end=(EndToEnd(Scan(500, edge=24), (OURS, TWO_COUNTERS, SUPPRESSED, FILE_WAY, SOCKET_WAY)),),
    feed=Scan(500, edge=24),
    feed_rates=(200, 400),
    suppressed_rates=(400,),
    tails=(Series(16, 3),),
    codec_noises=(5,),
    codec_electrons=(500,),
    chunk_sizes=(16,),
    stage_electrons=(500,),
    limit_megabytes=200,
    recall_frames=40,
)
