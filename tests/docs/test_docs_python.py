"""Python in the documentation runs, and the page of the counted file describes every field."""

from __future__ import annotations

import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest

from consumers.scan_file import ScanFile
from service.catalogue import Count, Scan
from tests.docs.pages import DOCS, PAGES, ROOT, blocks, rows
from tests.golden.values import CALIBRATIONS, RECORDS
from topics.event import CountEnd, EventHeader, Events
from topics.geometry import ScanGeometry
from topics.marker import EndMarker, EndReason, Ledger
from topics.scan_log import AutoThreshold, CountSettings, ThresholdsFound

RUNS = "<!-- runs -->\n"


@pytest.fixture
def counted_file(tmp_path: Path) -> Path:
    """``scan.h5`` of 24 x 12 positions, written as the sink writes it; sector 2 of the last frame is missing."""
    geometry = ScanGeometry(width=24, height=12, frames_per_chunk=288, partitions=1)
    settings = CountSettings(auto_threshold=AutoThreshold(), dark="d" * 64, gain="f" * 64, row_dark="mean")
    found = ThresholdsFound.model_validate(RECORDS["log1_thresholds_found"].model_dump() | {"ordinal": 1, "count": 2})
    scan = Scan(ordinal=1, session="default", number=1, feed="test", geometry=geometry, started_ms=0)
    count = Count(offset=2, name="live", settings=settings, found=found)
    scan_file = ScanFile(scan, count, tmp_path, "sink-0")
    header = EventHeader(
        ordinal=1,
        count=2,
        count_name="live",
        geometry=geometry,
        chunk_index=0,
        payload_bytes=[1] * 4,
        epochs=[0] * 4,
        floors=[27.5] * 4,
    )
    indices = np.arange(geometry.frames - 1, dtype=np.uint32)
    offsets = np.minimum(np.arange(geometry.frames + 1), geometry.frames - 1)
    missing = np.zeros(geometry.frames, np.uint8)
    missing[-1] = 0b0100
    scan_file.add(Events(header, indices, offsets, missing))
    ends = [
        EndMarker(
            sector=m, ordinal=1, epoch=0, partition=0, geometry=geometry, reason=EndReason.COMPLETE, ledger=Ledger()
        )
        for m in range(4)
    ]
    scan_file.end(CountEnd(ordinal=1, count=2, count_name="live", geometry=geometry, partition=0, ends=list(ends)))
    return Path(scan_file.finish("cluster", CALIBRATIONS["cal1_fit"]).output).rename(tmp_path / "scan.h5")


SNIPPETS = [
    pytest.param(code, id=f"{page.name}-{number}")
    for page in PAGES
    for number, code in enumerate(blocks(page, "python", before=RUNS))
]


@pytest.mark.parametrize("code", SNIPPETS)
def test_python_that_is_marked_so_runs(code: str, counted_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (counted_file.parent / "tests").symlink_to(ROOT / "tests")
    monkeypatch.chdir(counted_file.parent)
    exec(compile(code, "snippet", "exec"), {"__name__": "snippet"})


def test_the_readme_and_every_binary_message_have_python_that_runs() -> None:
    pages_that_run = {page.stem for page in PAGES if blocks(page, "python", before=RUNS)}
    assert {"README", "file-format", "raw-chunk", "events", "dead-letter"} <= pages_that_run


def test_python_in_the_documentation_is_valid() -> None:
    for page in PAGES:
        for code in blocks(page, "python"):
            compile(textwrap.dedent(code), page.name, "exec")


def test_every_field_of_the_counted_file_is_described(counted_file: Path) -> None:
    text = (DOCS / "file-format.md").read_text(encoding="utf-8")
    with h5py.File(counted_file) as file:
        nodes = {"/": file}
        file.visititems(lambda name, node: nodes.update({name: node}))
        attributes = {name for node in nodes.values() for name in node.attrs}
    datasets = {name for name, node in nodes.items() if isinstance(node, h5py.Dataset)}
    assert {name for name in datasets | attributes if f"`{name}`" not in text} == set()
    described = {row[0].strip("`") for row in rows(text, 3) if "/" not in row[0] and "…" not in row[0]}
    assert described <= attributes
