"""The pages of the documentation, taken apart."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")] + sorted(DOCS.rglob("*.md"))


def blocks(page: Path, language: str, before: str = "") -> list[str]:
    """Fenced blocks of a language, those right behind the line ``before``."""
    pattern = rf"(?:^|\n){re.escape(before)}```{language}\n(.*?)\n```"
    return re.findall(pattern, page.read_text(encoding="utf-8"), re.DOTALL)


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def sections(page: Path, level: int) -> dict[str, str]:
    """Text under each heading of this level, by heading."""
    parts = re.split(rf"^{'#' * level} (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(text: str, columns: int) -> list[list[str]]:
    """Cells of all table rows with so many columns, without heads."""
    found = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in _table_lines(text)]
    return [row for row in found if len(row) == columns]


def _table_lines(text: str) -> Iterator[str]:
    lines = text.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("| ") and not line.startswith("| ---") and not following.startswith("| ---"):
            yield line.replace("| |", "|  |").replace("| |", "|  |")
