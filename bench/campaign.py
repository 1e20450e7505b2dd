"""The measurement of many workloads: how many, in which order, with progress, and resumable."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.harness import Limits, Team
from bench.journal import NOT_RUN, Journal, duration, progress
from bench.workloads import REAL, SURVEY, Workload, real, survey
from redistrib.synth.plan.bounds import lower_bound_elements

Figures = dict[str, Any]
Units = Mapping[str, Callable[[], Any]]
"""What a part measures, by name."""
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured: pairs per survey (None: all), named workloads, MiB per array."""

    survey_pairs: int | None
    real: int | None
    size_mib: int
    limits: Limits


FULL = Effort(survey_pairs=8, real=None, size_mib=32, limits=Limits())
QUICK = Effort(survey_pairs=3, real=9, size_mib=4, limits=Limits(60.0, rounds=5, turns=0.3))


def workloads(effort: Effort) -> list[Workload]:
    """What is measured, by number of devices, since some workers are started for a number."""
    size = effort.size_mib * MIB
    named = real(size)
    if effort.real is not None:
        named = named[:: max(1, len(named) // effort.real)][: effort.real]
    result = named + [w for devices in SURVEY for w in survey(devices, effort.survey_pairs, size)]
    return sorted(result, key=lambda w: (w.devices, w.group != REAL))


def measured(part: str, units: Units, journal: Journal, after: float = 0.0) -> None:
    """Measure every unit of a part that is not in the journal; `after`: seconds for later parts."""
    units_left = [name for name in units if (part, name) not in journal]
    start = time.monotonic()
    for done, name in enumerate(units_left, 1):
        finding = journal.once(part, name, units[name])
        remaining = duration((time.monotonic() - start) / done * (len(units_left) - done) + after)
        number = len(units) - len(units_left) + done
        label = " ".join(filter(None, [part, f"{number}/{len(units)}", name]))
        progress(f"{label}{bad(finding)}; {remaining} left")


def bad(finding: Any) -> str:
    """In parentheses, which runners were wrong, crashed or late, or why nothing was run."""
    if not isinstance(finding, dict):
        return ""
    if NOT_RUN in finding:
        return f" (not run: {finding[NOT_RUN]})"
    records = finding.get("runners", {})
    names = [f"{n} {r['status']}" for n, r in records.items() if r["status"] in BAD]
    return f" ({', '.join(names)})" if names else ""


BAD = ("wrong", "crashed", "timeout")


def measure(team: Team, workload: Workload) -> Figures:
    """One row: the workload, its bound, and a record per runner."""
    src, dst = workload.src, workload.dst
    bound = lower_bound_elements(src, dst) * src.itemsize
    request = workload.request
    return {
        "group": workload.group,
        "name": workload.name,
        "source": workload.source,
        **{key: request[key] for key in ("mesh", "src", "dst")},
        "source_tile_bytes": src.tile_bytes,
        "target_tile_bytes": dst.tile_bytes,
        "bound_bytes": bound,
        # Where nothing must move, there is nothing to time.
        "runners": team.measure(workload, clock=bound > 0),
    }
