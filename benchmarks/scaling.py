"""Output, tables and picture of docs/scaling.md, from ``stemstream plan`` with its built-in costs.

Run as ``python -m benchmarks.scaling`` when stemstream/plan_costs.json has changed. What stands between
``<!-- plan: NAME -->`` and ``<!-- end -->`` is replaced.
"""

import io
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from PIL import Image
from rich.console import Console

from benchmarks.machine import ROOT
from stemstream.plan import make_plan
from stemstream.plan_costs import read_costs
from stemstream.plan_pictures import draw_queues
from stemstream.plan_report import print_plan
from stemstream.plan_result import FRAME_BYTES, Case, Plan, Request

PAGE = ROOT / "docs" / "scaling.md"
PICTURE = ROOT / "docs" / "images" / "scaling-queues.png"
WIDTH = 100  # of the terminal
REQUEST = Request(  # the command's defaults
    frame_rate=87_000,
    width=1024,
    height=1024,
    electrons=500,
    pause_s=60,
    link_gbit=100,
    rtt_ms=20,
    replication=3,
    tls=False,
    buffer_gib=0.5,
)


def main() -> None:
    plan = make_plan(REQUEST, read_costs())
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), plan), encoding="utf-8")
    draw(plan)


def filled(text: str, plan: Plan) -> str:
    """The page with the parts that this plan gives."""

    def part(match: re.Match[str]) -> str:
        return f"{match[1]}\n\n{PARTS[match[2]](plan)}\n\n{match[3]}"

    return re.sub(r"(<!-- plan: ([\w-]+) -->).*?(<!-- end -->)", part, text, flags=re.DOTALL)


def output(plan: Plan) -> str:
    """Camera and first placement, then the warnings; not the other placements, nor what is assumed."""
    text = io.StringIO()
    print_plan(plan, Console(width=WIDTH, file=text))
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    second = next(place for place, line in enumerate(lines) if line.startswith("all-remote: "))
    last = max(place for place, line in enumerate(lines) if "frames lost, a scan" in line)
    assumed = next(place for place, line in enumerate(lines) if line.startswith("assumed"))
    return "\n".join(["```text", *lines[: second - 1], "…", *lines[last + 2 : assumed], "…", "```"])


def cases(plan: Plan) -> str:
    """What each case needs, and when the file is there."""
    head = ["placement", "codec", "receiver cores", "brokers", "counters", "over the link", "file after", "frames lost"]
    return markdown(head, [case_cells(case, plan.request) for case in plan.cases])


def case_cells(case: Case, request: Request) -> list[str]:
    found = case.closed_form
    return [
        case.placement,
        case.codec,
        str(case.receivers.cores),
        str(case.brokers.machines),
        str(case.counters.cores),
        f"{case.link.crossing_gb:.1f} GB",
        f"{found.time_to_file_s:.1f} s, waits for {found.slowest}",
        f"{found.lost_frames / request.frames:.0%}",
    ]


def units(plan: Plan) -> str:
    """Frames/s that one of each does when it is busy all the time."""
    full, suppressed = (units_of(case, plan) for case in plan.cases if case.placement == "counters-remote")
    return markdown(["one", "full chunks", "zero-suppressed"], [[n, rate(full[n]), rate(suppressed[n])] for n in full])


def units_of(case: Case, plan: Plan) -> dict[str, float]:
    """GB/s of raw pixels."""
    request, assumed = plan.request, plan.costs.assumed
    link_gb_s = request.link_gbit / 8 * assumed.link_efficiency.value
    return {
        "core of a sector's receiver": plan.gb_s / case.receivers.cores_a_sector,
        f"broker machine, {request.replication} copies": case.brokers.gb_s / case.brokers.machines,
        f"link of {request.link_gbit:g} Gbit/s": link_gb_s * plan.scan_gb / case.link.crossing_gb,
        "counter core": case.counters.gb_s / case.counters.cores,
        "sink": case.sink.gb_s,
    }


def rate(gb_s: float) -> str:
    return f"{gb_s * 1e9 / FRAME_BYTES:,.0f}"


def costs(plan: Plan) -> str:
    """The table of costs."""
    head = ["codec", "electrons", "receiver", "broker", "counter", "sink", "raw bytes a message byte"]
    rows = [
        [
            row.codec,
            *(f"{n:g}" for n in (row.electrons, row.receiver, row.broker, row.counter, row.sink, row.traffic_ratio)),
        ]
        for row in plan.costs.measured.stages
    ]
    return markdown(head, rows)


def assumptions(plan: Plan) -> str:
    """What is assumed, and why."""
    return markdown(["assumed", "value", "why"], [[f"`{n}`", f"{a.value:g}", a.reason] for n, a in plan.costs.assumed])


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rows])


PARTS: dict[str, Callable[[Plan], str]] = {
    "output": output,
    "cases": cases,
    "units": units,
    "costs": costs,
    "assumptions": assumptions,
}


def draw(plan: Plan) -> None:
    """Draw the queues of the first placement, in few colours, so that the file is small."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Image.open(draw_queues(plan, Path(folder))[0]).convert("RGB")
    lines = [(214, 39, 40), (31, 119, 180), (44, 160, 44), (255, 127, 14), (148, 103, 189)]
    pale = [tuple((255 + value) // 2 for value in line) for line in lines]
    greys = [(value,) * 3 for value in (255, 229, 204, 153, 100, 0)]
    palette = Image.new("P", (1, 1))
    palette.putpalette([value for colour in [*greys, *lines, *pale] for value in colour])
    picture.quantize(palette=palette, dither=Image.Dither.NONE).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
