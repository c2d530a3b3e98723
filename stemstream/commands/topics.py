"""``stemstream topics``: make the topics of the registry, and compare."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from service.topic_admin import create_topics, differences, existing_partitions
from stemstream.commands.options import Bootstrap, embedded_bootstrap
from topics.geometry import MAX_PARTITIONS
from topics.registry import FOREVER, HOUR_MS, TOPICS

app = typer.Typer(help="The Kafka topics of the registry (topics/registry.py).", no_args_is_help=True)


@app.command()
def create(
    partitions: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_PARTITIONS, help="P of the raw and events topics. Default: as they have, or 8."),
    ] = None,
    replication: Annotated[int, typer.Option(min=1, max=7, help="Replicas of each partition.")] = 1,
    bootstrap: Bootstrap = None,
) -> None:
    """Make the topics that are missing; those that exist are left as they are."""
    made = create_topics(bootstrap or embedded_bootstrap(), partitions, replication)
    typer.echo(f"made: {', '.join(made)}" if made else "nothing to make: all topics exist")


@app.command()
def check(bootstrap: Bootstrap = None) -> None:
    """Say how the existing topics differ from the registry. Exit code 0 if they do not, 1 if they do."""
    address = bootstrap or embedded_bootstrap()
    found = existing_partitions(address)
    table = Table("topic", "partitions", "kept for", "written by", "read by", "holds")
    for column in table.columns:
        column.overflow = "fold"
    table.columns[0].no_wrap = True
    for topic in TOPICS:
        kept = "ever" if topic.retention_ms == FOREVER else f"{topic.retention_ms // HOUR_MS} h"
        readers, writers = ", ".join(topic.readers), ", ".join(topic.writers)
        table.add_row(topic.name, str(found.get(topic.name, "-")), kept, writers, readers, topic.holds)
    Console().print(table)
    lines = differences(address)
    for line in lines:
        typer.echo(f"differs: {line}")
    if lines:
        raise typer.Exit(1)
