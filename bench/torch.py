"""Our redistribution of DTensors against torch's own, over gloo, in turns: `python -m bench.torch`.

Random pairs of placements of a 64 MiB array on 4 and on 8 ranks, each pair four times, ours and
torch's one after the other; a time is that of the slowest rank. Then the time to plan one pair on a
mesh of four dimensions, ours against DTensor's planner over a graph. It runs in `.venv-torch`, and
prints Markdown.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from math import exp, log
from pathlib import Path
from statistics import median
from typing import Any

from bench.timing import machine

ROOT = Path(__file__).parents[1]
PYTHON = Path(os.environ.get("REDISTRIB_TORCH", ROOT / ".venv-torch")) / "bin" / "python"
PAIRS = 40
TURNS = 4


def geometric_mean(values: list[float]) -> float:
    """The mean of ratios."""
    return exp(sum(map(log, values)) / len(values))


def measured(ranks: int, pairs: int) -> list[dict[str, Any]]:
    """A row per pair: placements, seconds per turn of both, bytes that the worst rank received."""
    answer = subprocess.run(
        [str(PYTHON), "-m", "bench.workers.torch_ranks", str(ranks), str(pairs), str(TURNS)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=3000,
    )
    return [json.loads(line) for line in answer.stdout.splitlines() if line.startswith("{")]


def page(ranks: int, rows: list[dict[str, Any]]) -> str:
    """The rows as a table, and what they come to."""
    timed = [row for row in rows if "ours" in row]
    ratios: list[list[float]] = []  # per kind of seconds, per pair
    slower = 0
    for kind in range(2):
        turns = [
            [b[kind] / max(a[kind], 1e-9) for a, b in zip(r["ours"], r["torch"], strict=True)]
            for r in timed
        ]
        ratios.append([median(of_pair) for of_pair in turns])
        slower = slower or sum(sum(ratio < 0.95 for ratio in pair) >= 3 for pair in turns)
    wall, cpu = ratios
    lines = [
        f"{ranks} ranks, {len(timed)} pairs: torch takes {geometric_mean(wall):.2f} times as long "
        f"(geometric mean of medians; {min(wall):.2f} to {max(wall):.2f}), in processor time "
        f"{geometric_mean(cpu):.2f} times ({min(cpu):.2f} to {max(cpu):.2f}); below 0.95 in three "
        f"of {TURNS} turns: {slower} pairs",
        "",
        "| mesh | source | target | ours, ms | torch, ms | torch / ours | processor time |",
        "|---|---|---|---|---|---|---|",
    ]
    for row, ratio, used in sorted(zip(timed, wall, cpu, strict=True), key=lambda r: r[2]):
        ours, theirs = (median(t for t, _ in row[name]) * 1e3 for name in ("ours", "torch"))
        lines.append(
            f"| {row['mesh']} | {row['src']} | {row['dst']} | {ours:.1f} | {theirs:.1f} | "
            f"{ratio:.2f} | {used:.2f} |"
        )
    for row in rows:
        if "planning" in row:
            ours, theirs = row["planning"]
            lines += [
                "",
                f"Planning on {row['mesh']}, median of {row['pairs']} pairs: {ours * 1e3:.2f} ms, "
                f"DTensor's graph planner {theirs * 1e3:.0f} ms, {theirs / ours:.0f} times.",
            ]
    return "\n".join(lines)


def main() -> None:
    """Measure on 4 and on 8 ranks, and print."""
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS
    on = machine()
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, `python -m bench.torch`. {on['cores']} cores of "
        f"{on['cpu']}, load {on['load']} at the start. python {platform.python_version()}\n"
    )
    for ranks in (4, 8):
        print(page(ranks, measured(ranks, pairs)), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
