"""The exchange on MPICH and Open MPI beside what programs write by hand and beside other libraries.

python -m bench.mpi_exchange [--quick] [--only TEXT ...] [--rounds N] [--output STEM]

Every job is one mpiexec in which all methods take turns. Printed are medians of the slowest rank,
as ratios to one Alltoallw with subarray types, and the memory of a call beside source and target.
The rounds' own ratios of redistrib to Alltoallw are in brackets: lower and upper quartile.
`shared`: the result is in memory that the ranks of the node share.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.mpi_worker import HAND_WRITTEN, LIBRARIES, OURS
from bench.peers import NOT_MEASURED
from bench.timing import machine
from redistrib.demo.launch import MPICH, OPENMPI, Installation, finish, start

MIB = 1 << 20
TIMEOUT = 600.0


@dataclass(frozen=True, slots=True)
class Job:
    """One redistribution on one MPI; `mib` of the global array."""

    mpi: Installation
    name: str
    mesh: dict[str, int]
    dtype: str
    mib: int

    def __str__(self) -> str:
        axes = "x".join(map(str, self.mesh.values()))
        return f"{self.name} on {axes}, {self.dtype}, {self.mib} MiB"

    def types(self) -> tuple[str, str]:
        """(x,-) -> (-,x), or (x,y) -> (y,x), of twice as many rows as columns."""
        items = self.mib * MIB // (4 if self.dtype == "f32" else 8)
        columns = 1
        while columns * columns * 2 < items:
            columns *= 2
        rows = items // columns
        if len(self.mesh) == 1:
            return f"{self.dtype}[{rows}{{x}}, {columns}]", f"{self.dtype}[{rows}, {columns}{{x}}]"
        return (
            f"{self.dtype}[{rows}{{x}}, {columns}{{y}}]",
            f"{self.dtype}[{rows}{{y}}, {columns}{{x}}]",
        )


def jobs(quick: bool) -> Iterator[Job]:
    for mpi in (MPICH, OPENMPI):
        for mib in (32,) if quick else (128, 512):
            for dtype in ("f32",) if quick else ("f32", "f64"):
                for ranks in (2, 4, 8):
                    yield Job(mpi, "(x,-)->(-,x)", {"x": ranks}, dtype, mib)
                    if ranks > 2:
                        yield Job(mpi, "(x,y)->(y,x)", {"x": ranks // 2, "y": 2}, dtype, mib)


def measure(job: Job, rounds: int) -> dict[str, Any]:
    src, dst = job.types()
    description = {"mesh": job.mesh, "src": src, "dst": dst, "rounds": rounds}
    ranks = 1
    for size in job.mesh.values():
        ranks *= size
    process = start(job.mpi, ranks, "-m", "bench.mpi_worker", json.dumps(description))
    out, errors = finish(process, TIMEOUT)
    if process.returncode:
        raise RuntimeError(errors[-2000:])
    answer: dict[str, Any] = json.loads(out.splitlines()[-1])
    return {
        "mpi": job.mpi.name,
        "job": str(job),
        "ranks": ranks,
        **answer,
    }


def verdicts(row: dict[str, Any]) -> dict[str, bool]:
    """What must hold of a job, for either way of ours."""
    return {
        f"{text}{' into shared tiles' * (name != OURS[0])}": holds
        for name in OURS
        for text, holds in _verdicts(row, name).items()
    }


def _verdicts(row: dict[str, Any], name: str) -> dict[str, bool]:
    seconds = row["seconds"]
    ours = seconds[name]
    best = min(seconds[name] for name in HAND_WRITTEN)
    verdicts = {
        "1.1x of the best by hand": ours <= 1.1 * best,
        "memory <= 0.1 tile + 2 MiB": row["extra_bytes"][name] <= 0.1 * row["tile_bytes"] + 2 * MIB,
    }
    if row["mpi"] == "openmpi":
        verdicts["1.05x of Alltoallw"] = ours <= 1.05 * seconds["Alltoallw"]
    elif row["runs"] > 1024:
        verdicts["half of Alltoallw"] = ours <= 0.5 * seconds["Alltoallw"]
    if row["ranks"] == 2:
        verdicts["70% of memcpy"] = 0.7 * ours <= seconds["memcpy"]
    for library in LIBRARIES:
        if library in seconds:
            verdicts[f"faster than {library}"] = ours < seconds[library]
    return verdicts


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: ratios to Alltoallw, and whether each bound holds."""
    names = [*OURS, *HAND_WRITTEN, *LIBRARIES, "memcpy"]
    names = [n for n in names if any(n in row["seconds"] for row in rows)]
    head = ["MPI", "job", *names, "Alltoallw, ms", "extra, MiB", "holds"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        unit = row["seconds"]["Alltoallw"]
        cells = [f"{row['seconds'][n] / unit:.2f}" if n in row["seconds"] else "-" for n in names]
        low, high = row["quartiles"]
        cells[0] += f" ({low:.2f}-{high:.2f})"
        missed = [name for name, holds in row["verdicts"].items() if not holds]
        lines.append(
            f"| {row['mpi']} | {row['job']} | {' | '.join(cells)} | {unit * 1e3:.1f} | "
            f"{row['extra_bytes']['redistrib'] / MIB:.2f} | {'not: ' * bool(missed)}"
            f"{', '.join(missed) or 'all'} |"
        )
    return "\n".join(lines)


def absent(rows: list[dict[str, Any]]) -> str:
    """The libraries that did no job under one of the MPIs, as a line; empty if there are none."""
    names = []
    for name in LIBRARIES:
        without = {row["mpi"] for row in rows} - {r["mpi"] for r in rows if name in r["seconds"]}
        if without:
            names.append(f"{name} (on {', '.join(sorted(without))})")
    return f"{NOT_MEASURED}{', '.join(names)}; bench/mpi_peers.py has what they need" * bool(names)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="32 MiB, one dtype")
    parser.add_argument("--only", nargs="+", default=[], help="jobs whose line has all these texts")
    parser.add_argument("--rounds", type=int, default=9, help="2 at least")
    parser.add_argument("--output", type=Path, help="write STEM.json and STEM.md")
    options = parser.parse_args()
    rows = []
    for job in jobs(options.quick):
        if not all(text in f"{job.mpi.name}: {job}" for text in options.only):
            continue
        row = measure(job, options.rounds)
        row["verdicts"] = verdicts(row)
        rows.append(row)
        print(f"{job.mpi.name}: {row['job']}", file=sys.stderr, flush=True)
        if options.output is not None:  # after each job: a run of all takes minutes
            figures = {"machine": machine(), "rows": rows}
            options.output.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n")
            options.output.with_suffix(".md").write_text(table(rows) + "\n")
    print(table(rows))
    if line := absent(rows):
        print(f"\n{line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
