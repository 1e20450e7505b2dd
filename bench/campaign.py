"""The measurement of many workloads: in an order, with progress, and resumable.

Every finished workload is a line of a git-ignored file, below a first line that says under which
settings, versions and commit it was measured. A run with the same first line goes on behind the
last; any other starts afresh.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.harness import Limits, Runner, Team
from bench.workloads import REAL, SURVEY, Workload, real, survey
from redistrib.synth.plan import lower_bound_elements

Figures = dict[str, Any]
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured: pairs per survey (None: all), named workloads, MiB per array."""

    survey_pairs: int | None
    real: int | None
    size_mib: int
    limits: Limits


FULL = Effort(survey_pairs=None, real=None, size_mib=64, limits=Limits())
QUICK = Effort(survey_pairs=5, real=12, size_mib=4, limits=Limits(60.0, rounds=5, turns=0.5))


def workloads(effort: Effort) -> list[Workload]:
    """What is measured, by number of devices, since some workers are started for a number."""
    size = effort.size_mib * MIB
    named = real(size)
    if effort.real is not None:
        named = named[:: max(1, len(named) // effort.real)][: effort.real]
    found = named + [w for devices in SURVEY for w in survey(devices, effort.survey_pairs, size)]
    return sorted(found, key=lambda w: (w.devices, w.group != REAL))


def measured(
    items: Sequence[Workload], runners: Sequence[Runner], limits: Limits, path: Path, about: Figures
) -> list[Figures]:
    """The rows of all workloads; those in the file at `path` are not measured again."""
    done = finished(path, about)
    if done:
        progress(f"{len(done)} workloads were measured before; going on from {path.name}")
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(about) + "\n", encoding="utf-8")
    left = [workload for workload in items if workload.name not in done]
    start = time.monotonic()
    with Team(runners, limits) as team, path.open("a", encoding="utf-8") as file:
        for at, workload in enumerate(left):
            row = measure(team, workload)
            done[workload.name] = row
            file.write(json.dumps(row) + "\n")
            file.flush()
            spent = time.monotonic() - start
            remaining = duration(spent / (at + 1) * (len(left) - at - 1))
            bad = [f"{n} {r['status']}" for n, r in row["runners"].items() if r["status"] in BAD]
            note = f" ({', '.join(bad)})" if bad else ""
            progress(f"{len(done)}/{len(items)} {workload.name}{note}; {remaining} left")
    return [done[workload.name] for workload in items]


BAD = ("wrong", "crashed", "timeout")


def finished(path: Path, about: Figures) -> dict[str, Figures]:
    """The rows in a file, by workload, if it was measured under the same settings."""
    if not path.exists():
        return {}
    first, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
    if first != json.dumps(about):
        progress(f"{path.name} is of other settings, versions or code: starting afresh")
        return {}
    rows = {}
    for line in lines:
        # The last line may be cut off in the middle.
        if line.endswith("}"):
            row = rounded(json.loads(line))
            rows[row["name"]] = row
    return rows


def measure(team: Team, workload: Workload) -> Figures:
    """One row: the workload, its bound, and a record per runner."""
    src, dst = workload.src, workload.dst
    bound = lower_bound_elements(src, dst) * src.itemsize
    request = workload.request
    return rounded(
        {
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
    )


def rounded(value: Any) -> Any:
    """The same with four significant digits per fraction."""
    match value:
        case float():
            return float(f"{value:.4g}")
        case dict():
            return {key: rounded(inner) for key, inner in value.items()}
        case list():
            return [rounded(inner) for inner in value]
        case _:
            return value


def settings(effort: Effort) -> Figures:
    """The effort as JSON."""
    return asdict(effort)


def progress(text: str) -> None:
    """One line on stderr."""
    sys.stderr.write(f"bench: {text}\n")
    sys.stderr.flush()


def duration(seconds: float) -> str:
    """Seconds as a person says it."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02} min"
