"""Is it safe to start the next scan? From the receivers' buffers, the lag, the disks and the scan log."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from service.catalogue import Catalogue
from stemstream.supervisor import metric_samples
from stemstream.up_state import ServiceStatus, UpState

# The camera at its full rate: 87,000 frames/s of 576 x 576 uint16; in the topics about a third of that.
CAMERA_BYTES_A_SECOND = 87_000 * 576 * 576 * 2
COMPRESSION = 3
LEAST_DISK_BYTES = 10 * 10**9
MOST_BUFFER_USED = 0.5
MOST_LAG_MESSAGES = 200


@dataclass(frozen=True, slots=True)
class Safety:
    """What the answer rests on. ``reasons`` says why not; empty: it is safe."""

    buffer_used_bytes: int
    buffer_limit_bytes: int
    lag_messages: int
    disk_free_bytes: int
    reasons: list[str]

    @property
    def safe(self) -> bool:
        """Whether the next scan may begin."""
        return not self.reasons

    def describe(self) -> str:
        """One line for a person, sizes also as time at the camera's full rate."""
        answer = "yes" if self.safe else f"no: {'; '.join(self.reasons)}"
        left = self.buffer_limit_bytes - self.buffer_used_bytes
        return (
            f"safe to start the next scan: {answer}\n"
            f"receiver buffer: {self.buffer_used_bytes / 1e9:.2f} of {self.buffer_limit_bytes / 1e9:.2f} GB used, "
            f"{left / CAMERA_BYTES_A_SECOND:.3f} s left at the camera's rate; lag: {self.lag_messages} messages; "
            f"disk: {self.disk_free_bytes / 1e9:.0f} GB free, "
            f"{self.disk_free_bytes * COMPRESSION / CAMERA_BYTES_A_SECOND:.0f} s at the camera's rate"
        )


def assess(up: UpState, services: list[ServiceStatus], catalogue: Catalogue, data_dir: Path | None) -> Safety:
    """Look at what is up. ``data_dir`` holds the topics of the embedded broker; None: the disk is not ours to see."""
    used = limit = lag = 0
    for service in services:
        for name, _, value in metric_samples(service.metrics_port) if service.metrics_port else ():
            used += int(value) if name == "stemstream_buffered_bytes" else 0
            limit += int(value) if name == "stemstream_buffer_limit_bytes" else 0
            lag += int(value) if name == "stemstream_lag_messages" else 0
    free = shutil.disk_usage(data_dir or up.variables.get("STEMSTREAM_OUTPUT", "/")).free
    reasons = [f"{service.name} is {service.state}" for service in services if service.state != "ready"]
    newest = next(reversed(catalogue.scans.values()), None)
    if newest is not None and not newest.stated <= set(newest.ended):
        reasons.append(f"scan {newest.session}/{newest.number} is still being received")
    if limit and used > MOST_BUFFER_USED * limit:
        reasons.append("the receivers' buffer is more than half full")
    if lag > MOST_LAG_MESSAGES:
        reasons.append(f"counters or sink are {lag} messages behind")
    if free < LEAST_DISK_BYTES:
        reasons.append(f"only {free / 1e9:.1f} GB of disk are left")
    return Safety(used, limit, lag, free, reasons)
