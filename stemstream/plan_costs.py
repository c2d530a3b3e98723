"""What a GB of raw pixels costs at each stage: the table that ``stemstream plan`` computes from.

plan_costs.json has it, with what is assumed beside what was measured. ``make bench`` writes a file of the same form.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.errors import InputError

Codec = Literal["full", "zero-suppressed"]
CODECS: Final[tuple[Codec, ...]] = ("full", "zero-suppressed")

BUILT_IN: Final = Path(__file__).with_name("plan_costs.json")

Cost = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StageCosts(_Table):
    """CPU-seconds per GB (10^9 bytes) of raw pixels at a density of electrons, of processes with all their threads."""

    codec: Codec
    electrons: Annotated[float, Field(ge=0, allow_inf_nan=False, description="a frame")]
    traffic_ratio: Annotated[Cost, Field(description="raw bytes for each byte of chunk messages")]
    receiver: Cost
    broker: Annotated[Cost, Field(description="one copy, read by one group of counters, with the events")]
    counter: Cost
    sink: Cost


class Tail(_Table):
    """From the last frame published to the file under its final name, at a load far below the maximum, in s."""

    median_s: Cost
    p99_s: Cost


class Measured(_Table):
    """What was measured, where and when."""

    date: str
    commit: str
    machine: str
    how: str
    tail: Tail
    stages: Annotated[tuple[StageCosts, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _one_row_a_density(self) -> Self:
        rows = [(row.codec, row.electrons) for row in self.stages]
        if len(set(rows)) < len(rows):
            raise ValueError("two rows for the same codec and electrons")
        return self


class Assumption(_Table):
    """A value that was not measured here, and what it rests on."""

    value: Cost
    reason: str


class Assumed(_Table):
    """Values that were not measured here."""

    planned_utilisation: Assumption
    receiver_process_cores: Assumption
    broker_cores: Assumption
    broker_network_gbit: Assumption
    broker_disk_gb_s: Assumption
    broker_disk_tb: Assumption
    link_efficiency: Assumption
    window_mib: Assumption
    tls_client_s_per_gb: Assumption
    tls_broker_s_per_gb: Assumption
    sink_disk_gb_s: Assumption


class Costs(BaseModel):
    """A table of costs. A file may say more than this."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    measured: Measured
    assumed: Assumed

    def at(self, codec: Codec, electrons: float) -> StageCosts:
        """Costs at a density: on straight lines between those measured.

        Below the lowest density its costs hold. Above the highest one the last line goes on.

        Raises
        ------
        InputError
            The codec was not measured.
        """
        rows = sorted((row for row in self.measured.stages if row.codec == codec), key=lambda row: row.electrons)
        if not rows:
            raise InputError(f"the table of costs has no stages for the codec {codec}")
        # Bytes are proportional to electrons, and not the ratio, which is their inverse.
        traffic = 1 / self._line(rows, [1 / row.traffic_ratio for row in rows], electrons)
        stages = {
            stage: self._line(rows, [getattr(row, stage) for row in rows], electrons)
            for stage in ("receiver", "broker", "counter", "sink")
        }
        return StageCosts(codec=codec, electrons=electrons, traffic_ratio=traffic, **stages)

    def measured_range(self, codec: Codec) -> tuple[float, float]:
        """Lowest and highest density that was measured with a codec, electrons a frame."""
        electrons = [row.electrons for row in self.measured.stages if row.codec == codec]
        return min(electrons), max(electrons)

    @staticmethod
    def _line(rows: list[StageCosts], values: list[float], electrons: float) -> float:
        densities = [row.electrons for row in rows]
        if electrons <= densities[-1] or len(rows) == 1:
            return float(np.interp(electrons, densities, values))
        slope = max(0.0, (values[-1] - values[-2]) / (densities[-1] - densities[-2]))
        return float(values[-1] + slope * (electrons - densities[-1]))


class _Given(BaseModel):
    """A file of --costs: what it lacks is taken from the built-in table."""

    model_config = ConfigDict(extra="ignore")

    measured: Measured | None = None
    assumed: dict[str, Assumption] = {}
    benchmarks: dict[str, Any] | None = None


def read_costs(path: Path | None = None) -> Costs:
    """Read a table of costs, or results of ``make bench``; None: the built-in table.

    A file may have ``measured``, some of ``assumed``, or both; the rest is that of the built-in table.

    Raises
    ------
    InputError
        The file cannot be read, or is neither.
    """
    from stemstream.plan_benchmarks import measured_by_benchmarks  # noqa: PLC0415  # it needs the table

    built_in = Costs.model_validate_json(BUILT_IN.read_bytes())
    if path is None:
        return built_in
    try:
        text = path.read_bytes()
        given = _Given.model_validate_json(text)
        measured = given.measured if given.benchmarks is None else measured_by_benchmarks(text)
        if measured is None and not given.assumed:
            raise InputError(f"{path}: no table of costs: it has none of 'measured', 'assumed' and 'benchmarks'")
        assumed = Assumed.model_validate(dict(built_in.assumed) | given.assumed)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise InputError(f"{path}: no table of costs: {where}: {first['msg']}") from error
    return Costs(measured=measured or built_in.measured, assumed=assumed)
