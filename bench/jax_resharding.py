"""How fast plans run on jax, beside XLA's own resharding:  python -m bench.jax_resharding [--quick]

On 16 virtual CPU devices, in one process, the two programs of a pair take turns on the same 64 MiB
array. Pairs are those of redistrib/demo/survey.py that must communicate. Per pair: median ms
on the wall of each, and median and quartiles over turns of XLA's time over ours; the same by CPU
time of the process, which a busy machine disturbs less. Pairs on which XLA's compiler crashes are
counted. No GPU or TPU was at hand: bench.jax_ahead_of_time compares memory and bytes of the
programs compiled for them; there are no times.

Markdown on stdout, progress on stderr. With --json FILE the rows are kept there, and those that it
has are not measured again; --minutes N stops after so many.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import date
from functools import partial
from math import exp, log
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bench.timing import Timed, machine, timed
from redistrib.demo.survey import Pair, pair_of, pairs, program_of

ROOT = Path(__file__).parents[1]
DEVICES = 16
SHAPES = {2: (4096, 4096), 3: (128, 256, 512), 4: (32, 64, 64, 128)}  # 64 MiB of f32
TURNS = 9
FEW = 3  # turns after which a pair that takes longer than SECONDS is left
SECONDS = 5
QUICK = 24  # every so many pairs, one, in quick mode
BLOCK = 10  # pairs in a process

Row = dict[str, Any]


def measure(pair: Pair, turns: int, rng: random.Random) -> Row | None:
    """Times of both programs, in turns; None if nothing has to travel."""
    import jax

    from redistrib.interop.hlo_traffic import hlo_traffic

    devices = jax.devices()
    programs = {}
    row: Row = asdict(pair)
    for name in ("ours", "xla"):
        found = program_of(pair, name, devices)
        assert found is not None  # only chunks may be missing
        plan, jitted = found
        if not plan.lower_bound_bytes:
            return None
        abstract: Any = jax.ShapeDtypeStruct  # untyped in jax
        programs[name] = jitted.lower(abstract(pair.shape, plan.src.numpy_dtype)).compile()
        traffic = hlo_traffic(programs[name].as_text())
        row |= {
            f"{name} received": traffic.received_bytes,
            f"{name} collectives": traffic.counts,
            f"{name} buffer": traffic.largest_buffer_bytes,
        }
    row["steps"] = [step.collective for step in plan.steps]
    row["tile"] = max(plan.src.tile_bytes, plan.dst.tile_bytes)
    sharding = programs["ours"].input_shardings[0][0]
    given = jax.jit(lambda: jax.numpy.ones(pair.shape), out_shardings=sharding)()
    times: dict[str, list[Timed]] = {name: [] for name in programs}
    start = time.monotonic()
    for turn in range(turns + 1):
        if turn > FEW and time.monotonic() - start > SECONDS:
            break
        for name in rng.sample(list(programs), len(programs)):
            spent = timed(partial(run_to_end, programs[name], given))
            if turn:
                times[name].append(spent)
    for clock in ("wall", "cpu"):
        own, theirs = ([getattr(t, clock) / 1e6 for t in times[n]] for n in ("ours", "xla"))
        ratios = [b / a for a, b in zip(own, theirs, strict=True)]
        low, mid, high = quantiles(ratios, n=4, method="inclusive")
        row[clock] = {"ours ms": median(own), "xla ms": median(theirs), "ratio": mid}
        row[clock]["quartiles"] = [low, high]
    return row


def run_to_end(program: Any, given: Any) -> None:
    program(given).block_until_ready()


def worker(turns: int) -> None:
    """Measure the pairs on stdin, a line of JSON for each; null where nothing travels."""
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={DEVICES}"
    os.environ["JAX_PLATFORMS"] = "cpu"
    rng = random.Random(0)
    for line in sys.stdin:
        sys.stdout.write(json.dumps(measure(pair_of(json.loads(line)), turns, rng)) + "\n")
        sys.stdout.flush()


def rows(chosen: Sequence[Pair], turns: int) -> Iterator[Row | None]:
    """What was measured of each pair; "crashed" where XLA took the process with it."""
    left = list(chosen)
    while left:
        block = left[:BLOCK]
        run = subprocess.run(
            [sys.executable, "-m", "bench.jax_resharding", "--worker", str(turns)],
            cwd=ROOT,
            input="".join(json.dumps(asdict(pair)) + "\n" for pair in block),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        found = [json.loads(line) for line in run.stdout.splitlines()]
        yield from found
        left = left[len(found) :]
        if len(found) < len(block):
            yield asdict(left[0]) | {"crashed": -run.returncode}
            left = left[1:]


def mean(values: Sequence[float]) -> float:
    """Geometric mean; 0 of nothing."""
    return exp(sum(map(log, values)) / len(values)) if values else 0.0


def markdown(found: Sequence[Row], crashed: int) -> str:
    """The tables: a summary by each clock, and every pair, the slowest first."""
    lines = [
        f"# Resharding on jax, {DEVICES} virtual CPU devices, 64 MiB",
        "",
        f"{date.today()}, {machine()}. XLA's time over ours: median over turns per pair.",
        "",
        "| pairs | clock | count | geometric mean | median | least | under 0.9 in 3 of 4 turns |",
        "|---|---|---|---|---|---|---|",
    ]
    blown = [row for row in found if row["xla buffer"] > row["tile"]]
    for title, rows_of in (("that communicate", found), ("XLA's buffer above both tiles", blown)):
        for clock in ("wall", "cpu") if rows_of else ():
            ratios = [row[clock]["ratio"] for row in rows_of]
            slower = sum(row[clock]["quartiles"][1] < 0.9 for row in rows_of)
            lines.append(
                f"| {title} | {clock} | {len(ratios)} | {mean(ratios):.2f} | {median(ratios):.2f} "
                f"| {min(ratios):.2f} | {slower} |"
            )
    lines += [
        "",
        f"XLA's compiler crashed on {crashed} more.",
        "",
        "| mesh | source | target | steps | ours ms | XLA ms | ratio [quartiles] | by CPU time |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(found, key=lambda row: float(row["wall"]["ratio"])):
        wall, (low, high) = row["wall"], row["wall"]["quartiles"]
        specs = ["; ".join(",".join(entry) or "-" for entry in row[end]) for end in ("src", "dst")]
        lines.append(
            f"| {'x'.join(map(str, row['mesh']))} | {specs[0]} | {specs[1]} | "
            f"{', '.join(row['steps'])} | {wall['ours ms']:.1f} | {wall['xla ms']:.1f} | "
            f"{wall['ratio']:.2f} [{low:.2f}, {high:.2f}] | {row['cpu']['ratio']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.jax_resharding", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"one pair in {QUICK}")
    parser.add_argument("--every", type=int, default=1, help="one pair in so many")
    parser.add_argument("--json", type=Path, help="where the rows go as JSON, and are found")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker)
        return
    chosen = [
        replace(pair, shape=SHAPES[len(pair.shape)])
        for pair in pairs(DEVICES)[:: QUICK if options.quick else options.every]
    ]
    file = options.json
    known = json.loads(file.read_text())["rows"] if file and file.exists() else []
    done = [pair_of(row) for row in known]
    start = time.monotonic()
    left = [pair for pair in chosen if pair not in done]
    for number, row in enumerate(rows(left, TURNS), 1):
        if row is not None:
            known.append(row)
        print(f"\r{number}/{len(left)} pairs", end="", file=sys.stderr, flush=True)
        if file:
            file.write_text(json.dumps({"machine": machine(), "rows": known}, indent=1) + "\n")
        if time.monotonic() - start > 60 * options.minutes:
            break
    print(file=sys.stderr)
    asked = [row for row in known if pair_of(row) in chosen]
    found = [row for row in asked if "crashed" not in row]
    sys.stdout.write(markdown(found, len(asked) - len(found)))


if __name__ == "__main__":
    main()
