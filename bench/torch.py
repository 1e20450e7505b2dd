"""Our redistribution of DTensors against torch's own, over gloo, in turns: `python -m bench.torch`.

Random pairs of placements of a 64 MiB array on 4 and on 8 ranks, each pair four times, ours and
torch's one after the other; a time is that of the slowest rank. Then the time to plan one pair on a
mesh of four dimensions, ours against DTensor's planner over a graph. It runs in `.venv-torch`, and
prints Markdown. Each row is kept in build/bench/ as it comes: a run that was ended goes on there,
and one that is whole is printed again. Remove the files to measure anew.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from bench.timing import geometric_mean, machine

ROOT = Path(__file__).parents[1]
PYTHON = Path(os.environ.get("REDISTRIB_TORCH", ROOT / ".venv-torch")) / "bin" / "python"
KEPT = ROOT / "build" / "bench"
PAIRS = 40
TURNS = 4


def measured(ranks: int, pairs: int) -> list[dict[str, Any]]:
    """A row per pair, those kept first: placements, seconds per turn of both; then planning."""
    KEPT.mkdir(parents=True, exist_ok=True)
    file = KEPT / f"torch-{ranks}.jsonl"
    rows = kept(file)
    if sum("ours" in row for row in rows) < pairs:
        command = [str(PYTHON), "-m", "bench.workers.torch_ranks", str(ranks), str(pairs)]
        with file.open("a", encoding="utf-8") as output:
            subprocess.run(
                [*command, str(TURNS), str(len(rows))],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                stdout=output,
                check=True,
            )
    return kept(file)


def kept(file: Path) -> list[dict[str, Any]]:
    """The rows of a file; a last line that was cut off is taken out of it."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    complete = [line for line in lines if line.endswith("}")]
    if complete != lines:
        file.write_text("".join(f"{line}\n" for line in complete), encoding="utf-8")
    return [json.loads(line) for line in complete]


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
            (ours, theirs), cold = row["planning"], row["planning, cold"]
            lines += [
                "",
                f"Planning on {row['mesh']}, median of {row['pairs']} pairs in a row: "
                f"{ours * 1e3:.2f} ms, DTensor's graph planner {theirs * 1e3:.0f} ms, "
                f"{theirs / ours:.0f} times; each pair after the other planner's: "
                f"{cold[0] * 1e3:.2f} ms, {cold[1] / cold[0]:.0f} times.",
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
