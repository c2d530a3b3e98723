"""``run`` while services are up: the scan is sent to their receivers, and their counters and sink do the rest."""

from __future__ import annotations

import time
from collections.abc import Callable

from producers.feed_format import FIRST_PORT, sector_addresses
from producers.feed_sender import FeedSender, SenderSettings
from producers.raw_feed import raw_scan
from producers.raw_files import RawFiles
from service.catalogue import Scan
from service.errors import FaultError, InputError
from service.scan_log import ScanLog
from stemstream.count_options import CountOptions, count_settings
from stemstream.suppress_options import sending
from stemstream.up_state import UpState
from topics.geometry import SECTORS
from topics.scan_log import LIVE, CountFinished, CountSettings

# Scans that the receivers end by themselves, because frames are missing, take their idle timeout longer.
WAIT_AFTER_SENDING_S = 120.0


def check_same_settings(
    up: UpState, count: CountSettings, variables: dict[str, str], session: str | None, current: str
) -> None:
    """Refuse settings that are not those of the running services.

    Raises
    ------
    InputError
        A setting of the count, zero suppression, the output folder or the session differs.
    """
    theirs = _said(count_settings(CountOptions.from_variables(up.variables))[0], up.variables)
    ours = _said(count, variables)
    for name in {**theirs, **ours}:
        if theirs.get(name) != ours.get(name):
            raise InputError(
                f"services are up with {name} {theirs.get(name)}, not {ours.get(name)}; run with theirs, or stop them: "
                "stemstream down"
            )
    if session is not None and session != current:
        raise InputError(
            f"the current session is {current}, not {session}; change it: stemstream session start {session}"
        )


def _said(count: CountSettings, variables: dict[str, str]) -> dict[str, object]:
    return {**count.model_dump(), **sending(variables), "output": variables.get("STEMSTREAM_OUTPUT")}


def send_to_services(
    up: UpState, files: RawFiles, log: ScanLog, report: Callable[[int], None]
) -> tuple[Scan, CountFinished]:
    """Send the scan to the receivers and wait for its file. ``report`` gets the sector frames sent so far.

    Raises
    ------
    InputError
        The count was abandoned: its thresholds could not be found.
    FaultError
        A receiver takes no frames, or the file does not come.
    """
    first = up.variables.get("STEMSTREAM_FROM", f"tcp://127.0.0.1:{FIRST_PORT}")
    log.catch_up()
    begun_after = log.next_offset
    with FeedSender(SenderSettings(sector_addresses([first], list(range(SECTORS))))) as sender:
        sender.connect()
        sender.send(raw_scan(files), report)
    deadline = time.monotonic() + WAIT_AFTER_SENDING_S
    while time.monotonic() < deadline:
        log.poll(0.05)
        for scan in log.catalogue.scans.values():
            count = scan.counts.get(LIVE)
            if scan.ordinal < begun_after or scan.number != files.scan_number or count is None:
                continue
            if count.finished:
                return scan, count.finished
            if count.abandoned:
                raise InputError(f"the scan was not counted: {count.abandoned}")
    raise FaultError(
        f"no file of scan {files.scan_number} after {WAIT_AFTER_SENDING_S:.0f} s; see stemstream status and scans list"
    )
