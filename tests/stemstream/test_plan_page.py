"""docs/scaling.md says what ``stemstream plan`` says with the built-in costs."""

from __future__ import annotations

from benchmarks import scaling
from stemstream.plan import make_plan
from stemstream.plan_costs import read_costs


def test_the_page_has_output_and_tables_of_the_built_in_costs() -> None:
    """If not: ``python -m benchmarks.scaling`` mends it."""
    text = scaling.PAGE.read_text(encoding="utf-8")
    for name in scaling.PARTS:
        assert f"<!-- plan: {name} -->" in text
    assert scaling.filled(text, make_plan(scaling.REQUEST, read_costs())) == text
