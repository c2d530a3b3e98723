"""Whether the next scan may begin, from real metrics pages and a catalogue."""

from __future__ import annotations

from pathlib import Path

from service.catalogue import Catalogue
from service.metrics import Metrics, serve_metrics
from stemstream.safety import Safety, assess
from stemstream.up_state import ServiceStatus, UpState
from topics.geometry import ScanGeometry
from topics.marker import EndReason, Ledger
from topics.scan_log import ReceiverStarted, ScanStarted, SectorEnded

GEOMETRY = ScanGeometry(width=6, height=5, frames_per_chunk=16, partitions=1)


def catalogue(*, ended: bool) -> Catalogue:
    made = Catalogue()
    made.apply(0, 1, ReceiverStarted(sectors=[0], host="here", pid=1, version="1"))
    made.apply(1, 2, ScanStarted(session="s", number=3, geometry=GEOMETRY, sectors=[0], epoch=0, feed="live"))
    if ended:
        end = SectorEnded(
            ordinal=1,
            sector=0,
            epoch=0,
            reason=EndReason.COMPLETE,
            ledger=Ledger(),
            first_offsets=[0],
            last_offsets=[1],
        )
        made.apply(2, 3, end)
    return made


def assessed(
    tmp_path: Path, *, used: int = 0, lag: int = 0, state: str = "ready", scans: Catalogue | None = None
) -> Safety:
    metrics = Metrics("receiver")
    metrics.gauge("buffered_bytes", "used").set(used)
    metrics.gauge("buffer_limit_bytes", "limit").set(1000)
    metrics.lag.labels("raw.sector.0", 0).set(lag)
    with serve_metrics(metrics, 0) as port:
        service = ServiceStatus("receiver", 0, 1, 1.0, state, port, tmp_path / "log")  # type: ignore[arg-type]
        up = UpState(1, 1.0, "nowhere:1", True, {"STEMSTREAM_OUTPUT": str(tmp_path)}, [], [service])
        return assess(up, [service], scans or catalogue(ended=True), tmp_path)


def test_it_is_safe_when_all_is_ready_and_has_room(tmp_path: Path) -> None:
    safety = assessed(tmp_path, used=100, lag=3)
    assert safety.safe
    assert (safety.buffer_used_bytes, safety.buffer_limit_bytes, safety.lag_messages) == (100, 1000, 3)
    assert "safe to start the next scan: yes" in safety.describe()


def test_it_is_not_safe_and_says_why(tmp_path: Path) -> None:
    assert "buffer is more than half full" in assessed(tmp_path, used=501).describe()
    assert "201 messages behind" in assessed(tmp_path, lag=201).describe()
    assert "receiver-0 is restarting" in assessed(tmp_path, state="restarting").describe()
    assert "scan s/3 is still being received" in assessed(tmp_path, scans=catalogue(ended=False)).describe()
