"""The documentation says what the code does: links, tables, commands and quoted messages."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import typer

from stemstream.cli import app
from tests.docs.pages import DOCS, PAGES, ROOT, blocks, prose, rows, sections
from topics.registry import FOREVER, HOUR_MS, MIB, TOPICS, Topic, picture

PACKAGES = ("topics", "producers", "counting", "consumers", "service", "stemstream")
COMMANDS = DOCS / "command-line.md"
OPERATING = DOCS / "operating.md"

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


# Links.


def anchors(page: Path) -> set[str]:
    """Anchors that GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(linked), f"{page.name}: {target}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        for target in re.findall(r"\]\(([^)#\s]+)", prose(page)):
            linked = (page.parent / target).resolve()
            waiting += sorted(linked.glob("*.md")) if linked.is_dir() else [linked] if linked.suffix == ".md" else []
    assert set(PAGES) <= reached


def test_pictures_are_small() -> None:
    assert sum(path.stat().st_size for path in (DOCS / "images").iterdir()) < 1_000_000


# Commands.


@cache
def command_line() -> dict[str, click.Command]:
    """All commands by name, the groups left out: ``topics create``."""
    found: dict[str, click.Command] = {}

    def collect(name: str, command: Any) -> None:  # noqa: ANN401  # typer has a click of its own
        if not hasattr(command, "commands"):
            found[name] = command
        for word, child in getattr(command, "commands", {}).items():
            collect(f"{name} {word}".strip(), child)

    collect("", typer.main.get_command(app))
    return found


def options(command: Any) -> dict[str, Any]:  # noqa: ANN401
    """Long options of a command, with what click knows of them."""
    return {
        name: parameter
        for parameter in command.params
        for name in parameter.opts
        if name.startswith("--") and name != "--help"
    }


@cache
def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def shell_lines(page: Path) -> Iterator[str]:
    """Lines of the page's shell blocks that call us, and code between backticks in a line that does."""
    for block in [*blocks(page, "sh"), *re.findall(r"^    (.+)$", prose(page), re.MULTILINE)]:
        yield from (line for line in block.splitlines() if re.match(r"(stemstream|make)\b", line))
    yield from re.findall(r"`((?:stemstream|make) [a-z][^`]*)`", prose(page))


@pages
def test_commands_and_options_exist(page: Path) -> None:
    for line in shell_lines(page):
        program, *words = shlex.split(line, comments=True)
        if program == "make":
            called = [word for word in words if "=" not in word]
            assert set(called) <= make_targets(), line
            continue
        name = next((n for n in (" ".join(words[:2]), words[0]) if n in command_line()), None)
        if name is None:
            assert any(known.startswith(words[0] + " ") for known in command_line()), line
            continue
        used = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert used <= {*options(command_line()[name]), "--help"}, line


def test_the_readme_calls_commands() -> None:
    assert len(list(shell_lines(ROOT / "README.md"))) >= 3


def documented_commands() -> dict[str, str]:
    """Sections of the command line's page by command: ``topics create``."""
    names = {
        heading: re.match(r"`stemstream ([a-z ]+?)(?: [A-Z][^`]*)?`", heading) for heading in sections(COMMANDS, 2)
    }
    return {match[1]: sections(COMMANDS, 2)[heading] for heading, match in names.items() if match}


def test_every_command_has_a_section() -> None:
    assert sorted(documented_commands()) == sorted(command_line())


@pytest.mark.parametrize("name", sorted(command_line()))
def test_every_option_is_described_with_its_variable_and_default(name: str) -> None:
    documented = {}
    section = documented_commands()[name]
    if "(#options-of-a-count)" in section:
        section += sections(COMMANDS, 2)["Options of a count"]
    for option, variable, default, meaning in rows(section, 4):
        documented[option.strip("`").split()[0]] = (variable.strip("`"), default)
        assert meaning
    assert sorted(documented) == sorted(options(command_line()[name]))
    for option, parameter in options(command_line()[name]).items():
        variable, default = documented[option]
        assert variable == (parameter.envvar or "")
        if parameter.required:
            assert default == "required"
        elif parameter.default not in (None, "", False):
            assert default == str(parameter.default)


def test_every_environment_variable_is_described() -> None:
    pattern = re.compile(r"\bSTEMSTREAM_[A-Z_]+")
    sources = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    sources.append(ROOT / "docker-compose.yml")
    used = {name for path in sources for name in pattern.findall(path.read_text(encoding="utf-8"))}
    assert set(pattern.findall(COMMANDS.read_text(encoding="utf-8"))) == used


# What the registry and the services say of themselves.


def test_the_readme_has_the_picture_of_the_registry() -> None:
    assert blocks(ROOT / "README.md", "mermaid") == [picture()]


def topics_table() -> str:
    """Table of the registry."""
    lines = ["| topic | holds | messages | key | partitions | kept | largest message | written by | read by |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    lines += ["| " + " | ".join(_topic_cells(topic)) + " |" for topic in TOPICS]
    return "\n".join(lines)


def _topic_cells(topic: Topic) -> list[str]:
    kept = "for ever" if topic.retention_ms == FOREVER else f"{topic.retention_ms // HOUR_MS} h"
    return [
        f"`{topic.name}`",
        topic.holds,
        ", ".join(f"`{schema_id}`" for schema_id in topic.schema_ids),
        topic.key,
        str(topic.partitions),
        kept,
        f"{topic.max_message_bytes // MIB} MiB",
        ", ".join(topic.writers),
        ", ".join(topic.readers),
    ]


def test_the_table_of_topics_is_that_of_the_registry() -> None:
    text = (DOCS / "topics.md").read_text(encoding="utf-8")
    assert topics_table() in text, f"docs/topics.md needs this table:\n{topics_table()}"


def test_every_kind_of_message_has_a_page_that_names_its_id() -> None:
    titles = [page.read_text(encoding="utf-8").splitlines()[0] for page in (DOCS / "messages").glob("*.md")]
    documented = sorted(schema_id for title in titles for schema_id in re.findall(r"`(\w{4})`", title))
    assert documented == sorted({schema_id for topic in TOPICS for schema_id in topic.schema_ids})


def declared_metrics() -> dict[str, tuple[str, list[str]]]:
    """Kind and labels of every metric that the code declares, by the name that Prometheus sees."""
    metrics = {}
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match call:
                case ast.Call(func=ast.Attribute(attr="counter" | "gauge" as kind), args=[ast.Constant(), *_]):
                    name, _, *labels = [ast.literal_eval(argument) for argument in call.args]
                    metrics[f"stemstream_{name}{'_total' if kind == 'counter' else ''}"] = (str(kind), labels)
    return metrics


def test_the_table_of_metrics_has_all_that_services_declare() -> None:
    table = rows(sections(OPERATING, 2)["Metrics and health"], 5)
    documented = {name.strip("`"): (kind, re.findall(r"`(\w+)`", labels)) for name, kind, labels, _, _ in table}
    assert len(documented) > 10
    assert documented == declared_metrics()


def test_every_package_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = project["build-system"]["requires"] + project["project"]["dependencies"]
    wanted += project["dependency-groups"]["dev"]
    table = rows((DOCS / "decisions" / "0001-dependencies.md").read_text(encoding="utf-8"), 3)
    named = {name for row in table for name in row[0].split(", ")}
    assert {re.split(r"[<>=]", package)[0] for package in wanted} == named - {"Apache Kafka", "Java", "Maven"}


# Quoted messages.


def _template(node: ast.expr) -> str:
    """Text of a string in the code, with … for what varies."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(_template(value) for value in values)
    return "…"


@cache
def texts_of_the_code() -> list[str]:
    trees = [ast.parse(path.read_text("utf-8")) for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return [_template(n) for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Constant | ast.JoinedStr)]


def quoted_messages() -> list[str]:
    lines = [line for name in ("A bad day", "When it says") for line in sections(OPERATING, 2)[name].splitlines()]
    return [m for line in lines if line.startswith("- `") for m in re.findall(r"`([^`]+)`", _head(line))]


def _head(line: str) -> str:
    """What stands before the explanation."""
    return re.split(r"`: ", line + " ")[0] + "`"


@pytest.mark.parametrize("message", quoted_messages())
def test_a_quoted_message_is_one_of_the_code(message: str) -> None:
    parts = [part for part in message.split("…") if part.strip()]
    pattern = re.compile(".*".join(re.escape(part) for part in parts), re.DOTALL)
    assert any(pattern.search(text) for text in texts_of_the_code())


def test_many_messages_are_explained() -> None:
    assert len(quoted_messages()) > 25


# The repository.


def tracked_texts() -> Iterator[tuple[str, str]]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file():
            try:
                yield name, path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


# Whoever adds a host here has looked whether everybody can reach it.
PUBLIC_HOSTS = {
    "127.0.0.1",
    "localhost",
    "arrow.apache.org",
    "docs.docker.com",
    "doi.org",
    "github.com",
    "jepsen.io",
    "keepachangelog.com",
    "maven.apache.org",
    "semver.org",
    "www.w3.org",
}


def test_no_file_names_a_machine_or_a_package_index() -> None:
    personal = re.compile(r"(?<![\w.~/])/(?:home|root|Users|work|tmp)/[\w.-]")
    index = re.compile(r"--(?:extra-)?index-url|--trusted-host|--find-links|<repository>|<mirror>")
    host = re.compile(r"https?://([\w.-]+)")
    seen = 0
    for name, text in tracked_texts():
        seen += 1
        assert not personal.search(text), f"{name}: {personal.search(text)}"
        assert name == "tests/docs/test_docs.py" or not index.search(text), f"{name}: {index.search(text)}"
        assert set(host.findall(text)) <= PUBLIC_HOSTS, f"{name}: {set(host.findall(text)) - PUBLIC_HOSTS}"
    assert seen > 50
