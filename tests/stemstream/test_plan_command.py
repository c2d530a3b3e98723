"""``stemstream plan``, from the outside."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from rich.console import Console
from typer.testing import CliRunner, Result

from service.errors import FaultError, InputError
from stemstream import plan_queues
from stemstream.cli import app
from stemstream.plan_report import print_plan
from stemstream.plan_result import Plan
from tests.stemstream.plan_tables import camera_costs, costs, row

PLACEMENTS = ["counters-remote", "all-remote", "counters-edge"]


@pytest.fixture(autouse=True)
def coarse_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_queues, "PARCELS_A_SCAN", 100)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["plan", *map(str, arguments)])


def told(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def case_of(plan: dict[str, Any], placement: str, codec: str) -> dict[str, Any]:
    (found,) = (c for c in plan["cases"] if (c["placement"], c["codec"]) == (placement, codec))
    return dict(found)


@pytest.fixture
def table(tmp_path: Path) -> tuple[str, Path]:
    """A table of costs that does not change, as options."""
    (tmp_path / "table.json").write_text(camera_costs().model_dump_json())
    return "--costs", tmp_path / "table.json"


def printed(*arguments: object) -> str:
    """What people are shown, on a wide terminal."""
    text = io.StringIO()
    print_plan(TypeAdapter(Plan).validate_python(told(*arguments)), Console(width=300, file=text))
    return text.getvalue()


# JSON.


def test_json_has_the_camera_the_costs_and_a_case_for_each_placement_and_codec() -> None:
    found = told("--frame-rate", 87_000, "--scan", "512x256", "--electrons", 300, "--pause", 20)
    assert set(found) == {"request", "gb_s", "scan_gb", "burst_s", "period_s", "costs", "cases", "pictures"}
    assert found["gb_s"] == pytest.approx(57.729024)
    assert found["scan_gb"] == pytest.approx(512 * 256 * 663_552e-9)
    assert found["burst_s"] == pytest.approx(512 * 256 / 87_000)
    assert found["period_s"] == pytest.approx(20 + 512 * 256 / 87_000)
    assert found["request"]["electrons"] == 300
    assert [(c["placement"], c["codec"]) for c in found["cases"]] == [
        (placement, codec) for placement in PLACEMENTS for codec in ("full", "zero-suppressed")
    ]
    assert found["pictures"] == []


def test_json_has_all_of_a_case() -> None:
    found = told("--scan", "64x64")
    for case in found["cases"]:
        assert set(case) == {
            *("placement", "codec", "costs", "extrapolated", "load", "receivers", "brokers", "counters", "sink"),
            *("link", "retention", "closed_form", "simulated", "warnings"),
        }
        simulated = case["simulated"]
        assert len(simulated["time_to_file_s"]) == len(simulated["lost_gb"]) == 4
        for queue in (simulated["buffer"], *simulated["queues"]):
            assert len(queue["gb"]) == len(simulated["sample_s"])
    stations = [queue["station"] for queue in case_of(found, "counters-edge", "full")["simulated"]["queues"]]
    assert stations == ["counters", "link", "sink"]


def test_json_is_the_plan_to_the_last_field() -> None:
    """Each type is that of the plan, nothing is missing, nothing is no number."""
    text = run("--scan", "64x64", "--rtt-ms", 0, "--json").stdout
    plan = TypeAdapter(Plan).validate_json(text, strict=True)
    assert TypeAdapter(Plan).dump_python(plan, mode="json") == json.loads(text)
    empty = set(re.findall(r'"(\w+)":null', text))
    assert empty <= {"full_after_hours", "receiver_cores", "brokers", "counters"}


def test_costs_in_the_json_are_a_table_of_costs_themselves(tmp_path: Path) -> None:
    first = told("--scan", "64x64")
    (tmp_path / "costs.json").write_text(json.dumps(first["costs"]))
    assert told("--scan", "64x64", "--costs", tmp_path / "costs.json") == first


def test_the_same_question_has_the_same_answer() -> None:
    assert run("--scan", "200x100", "--json").stdout == run("--scan", "200x100", "--json").stdout


def test_options_reach_the_plan(tmp_path: Path) -> None:
    (tmp_path / "costs.json").write_text(costs(row("full"), row("zero-suppressed")).model_dump_json())
    found = told(
        *("--frame-rate", 1000, "--scan", "30x20", "--electrons", 7, "--pause", 3, "--link-gbit", 4, "--rtt-ms", 5),
        *("--replication", 2, "--tls", "--buffer-gib", 6, "--receiver-cores", 8, "--brokers", 9, "--counters", 10),
        *("--costs", tmp_path / "costs.json"),
    )
    assert found["request"] == {
        "frame_rate": 1000,
        "width": 30,
        "height": 20,
        "electrons": 7,
        "pause_s": 3,
        "link_gbit": 4,
        "rtt_ms": 5,
        "replication": 2,
        "tls": True,
        "buffer_gib": 6,
        "receiver_cores": 8,
        "brokers": 9,
        "counters": 10,
    }
    assert found["costs"]["measured"]["how"] == "by hand"


# For people.


def test_the_table_says_what_json_says(table: tuple[str, Path]) -> None:
    found = case_of(told(*table), "counters-remote", "full")
    lines = [line.strip() for line in printed(*table).splitlines()]
    cores = next(line for line in lines if line.startswith("receiver cores "))
    assert cores.split()[2] == str(found["receivers"]["cores"])
    file = next(line for line in lines if line.startswith("file after the last frame "))
    assert file.split()[5] == f"{found['closed_form']['time_to_file_s']:.1f}"


def test_each_placement_is_said_with_what_stands_where() -> None:
    text = printed("--scan", "64x64")
    assert "counters-remote: receivers and broker at the microscope; counters and sink remote" in text
    assert "all-remote: only the receivers at the microscope; broker, counters and sink remote" in text
    assert "counters-edge: receivers, broker and counters at the microscope; the sink remote" in text


def test_where_numbers_come_from_is_said() -> None:
    text = printed("--scan", "64x64")
    assert "measured  20" in text
    assert "assumed   broker_disk_gb_s 1.9: " in text
    assert "tls" not in text
    assert "assumed   tls_broker_s_per_gb" in printed("--scan", "64x64", "--tls")


def test_a_warning_is_said_once_with_the_cases_that_it_is_about(table: tuple[str, Path]) -> None:
    text = printed("--pause", 5, *table)
    (line,) = (line for line in text.splitlines() if "each file is" in line)
    assert line.split("  ")[0] == "counters-remote | full chunks"
    assert text.count("no steady state") == 1
    (line,) = (line for line in text.splitlines() if "the sink is one process" in line)
    assert line.startswith("all  ")
    assert text.count("a sector needs 7.9") == 1


def test_a_plan_that_does_not_fit_is_said_in_the_table(table: tuple[str, Path]) -> None:
    text = printed("--pause", 5, *table)
    assert "3.8 s later each" in text
    assert "432,717" in text


# Pictures.


def test_there_is_a_picture_of_the_queues_for_each_placement(tmp_path: Path) -> None:
    found = told("--scan", "64x64", "--pictures", tmp_path / "new" / "pictures")
    paths = [tmp_path / "new" / "pictures" / f"queues_{placement}.png" for placement in PLACEMENTS]
    assert found["pictures"] == [str(path) for path in paths]
    for path in paths:
        assert path.read_bytes().startswith(b"\x89PNG")


def test_pictures_that_cannot_be_written_are_a_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    error = run("--scan", "64x64", "--pictures", tmp_path / "file").exception
    assert isinstance(error, FaultError)
    assert "cannot be written: " in str(error)


# Wrong options.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--scan", "1024"), "--scan is '1024', expected WIDTHxHEIGHT, for example 1024x1024"),
        (("--scan", "0x5"), "--scan is '0x5', expected"),
        (("--scan", "70000x5"), "--scan is '70000x5', expected"),
        (("--brokers", "2"), "--brokers 2: 3 copies need as many"),
        (("--costs", "nowhere.json"), "nowhere.json: cannot be read"),
    ],
)
def test_what_cannot_be_is_refused(arguments: tuple[str, ...], words: str) -> None:
    error = run(*arguments).exception
    assert isinstance(error, InputError)
    assert str(error).startswith(words)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--frame-rate", "0"),
        ("--frame-rate", "inf"),
        ("--frame-rate", "nan"),
        ("--electrons", "-1"),
        ("--electrons", "1e9"),
        ("--pause", "-1"),
        ("--pause", "inf"),
        ("--link-gbit", "0"),
        ("--link-gbit", "nan"),
        ("--rtt-ms", "inf"),
        ("--buffer-gib", "inf"),
        ("--replication", "0"),
        ("--counters", "0"),
        ("--frame-rate", "fast"),
        ("--nonsense",),
        ("1024x1024",),
    ],
)
def test_options_out_of_range_are_usage_errors(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize("arguments", [("--scan", "1024"), ("--replication", "0")])
def test_an_error_is_one_line_and_exit_code_2(arguments: tuple[str, ...]) -> None:
    words = [sys.executable, "-m", "stemstream", "plan", *arguments]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
