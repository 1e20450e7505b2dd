"""Plans on jax beside XLA, Shardy and device_put, on every pair of the survey.

    python -m bench.jax_resharding [--quick] [--pairs N ...] [--json FILE]

On 16 virtual CPU devices, in one process, the programs of a pair take turns on the same 64 MiB
array: the identity under jit, as XLA reshards it; our plan; the steps of Shardy's reshard pass,
lowered by our backend; and `jax.device_put`, which goes by way of the host. Pairs are those of
redistrib/demo/survey.py that must communicate. What each gives is compared with what XLA gives. Per
pair and program: milliseconds on the wall, and quartiles over turns of XLA's time over its own; the
same by CPU time of the process, which a busy machine disturbs less. No GPU or TPU was at hand:
bench.jax_ahead_of_time compares memory and bytes of the programs compiled for them; there are no
times.

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
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench.journal import rounded
from bench.planning_page import table
from bench.summary import verdict
from bench.timing import Timed, geometric_mean, machine, spread, timed
from redistrib.demo.survey import Pair, pair_of, pairs, program_of

ROOT = Path(__file__).parents[1]
DEVICES = 16
SHAPES = {2: (4096, 4096), 3: (128, 256, 512), 4: (32, 64, 64, 128)}  # 64 MiB of f32
TURNS = 9
FEW = 3  # turns after which a pair that takes longer than SECONDS is left
SECONDS = 8
QUICK = 24  # every so many pairs, one, in quick mode
BLOCK = 10  # pairs in a process
BASELINE = "XLA"

Row = dict[str, Any]


def measure(pair: Pair, turns: int, rng: random.Random) -> Row | None:
    """Figures and times of all programs, in turns; None if nothing has to travel."""
    import jax

    program = program_of(pair, "ours", jax.devices())
    assert program is not None  # only chunks may be missing
    plan, ours = program
    if not plan.lower_bound_bytes:
        return None
    runners: dict[str, Row] = {}
    calls: dict[str, Any] = {}
    for name, jitted in _programs(pair, plan, ours):
        if isinstance(jitted, str):
            runners[name] = {"missing": jitted}
            continue
        runners[name], calls[name] = _compiled(jitted, pair, plan)
    source, target = calls["ours"].input_shardings[0][0], calls["ours"].output_shardings
    calls["device_put"] = lambda x: jax.device_put(x, target)
    runners["device_put"] = {}
    numbered = jax.numpy.arange(plan.src.size, dtype=plan.src.numpy_dtype).reshape(pair.shape)
    array = jax.device_put(numbered, source)
    expected = calls[BASELINE](array)
    for name, call in calls.items():
        runners[name]["right"] = bool((call(array) == expected).all())
    times = _turns(calls, array, turns, rng)
    for clock in ("wall", "cpu"):
        spent = {name: [getattr(t, clock) / 1e6 for t in times[name]] for name in calls}
        for name, times_of_call in spent.items():
            ratios = [b / a for a, b in zip(times_of_call, spent[BASELINE], strict=True)]
            runners[name][clock] = {"ms": median(times_of_call), **spread(ratios)}
    row: Row = {**asdict(pair), "steps": [step.collective for step in plan.steps]}
    row["tile"] = max(plan.src.tile_bytes, plan.dst.tile_bytes)
    row |= {"bound": plan.lower_bound_bytes, "runners": runners}
    return rounded(row)  # type: ignore[no-any-return]


def _programs(pair: Pair, plan: Any, ours: Any) -> Iterator[tuple[str, Any]]:
    """Per name a jax.jit function, or why there is none."""
    import jax

    from bench.workers.protocol import UnsupportedError, WrongError
    from bench.workers.shardy import shardy_plan
    from redistrib.backends import jax as rjax

    program = program_of(pair, "xla", jax.devices())
    assert program is not None
    yield BASELINE, program[1]
    yield "ours", ours
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(pair.mesh), tuple(pair.axes))
    try:
        yield "Shardy", rjax.compile(shardy_plan(plan.src, plan.dst)[0], mesh)
    except (UnsupportedError, WrongError) as error:
        yield "Shardy", str(error)


def _abstract(pair: Pair, plan: Any) -> Any:
    import jax

    abstract: Any = jax.ShapeDtypeStruct  # untyped in jax
    return abstract(pair.shape, plan.src.numpy_dtype)


def _compiled(jitted: Any, pair: Pair, plan: Any) -> tuple[Row, Callable[[Any], Any]]:
    """What the HLO of a program says, and the program."""
    from redistrib.interop.hlo_traffic import hlo_traffic

    program = jitted.lower(_abstract(pair, plan)).compile()
    traffic = hlo_traffic(program.as_text())
    figures = {
        "received": traffic.received_bytes,
        "collectives": traffic.counts,
        "buffer": traffic.largest_buffer_bytes,
    }
    return figures, program


def _turns(
    calls: dict[str, Callable[[Any], Any]], array: Any, turns: int, rng: random.Random
) -> dict[str, list[Timed]]:
    """Times per program, one a turn, in random order in each; the first turn is not counted.

    Each call has a copy of the array: jax keeps what `device_put` has brought to the host.
    """
    import jax

    times: dict[str, list[Timed]] = {name: [] for name in calls}
    start = time.monotonic()
    for turn in range(turns + 1):
        if turn > FEW and time.monotonic() - start > SECONDS:
            break
        for name in rng.sample(list(calls), len(calls)):
            copy = jax.block_until_ready(array.copy())
            spent = timed(partial(_run_to_end, calls[name], copy))
            if turn:
                times[name].append(spent)
    return times


def _run_to_end(program: Any, array: Any) -> None:
    program(array).block_until_ready()


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
    remaining = list(chosen)
    while remaining:
        block = remaining[:BLOCK]
        run = subprocess.Popen(
            [sys.executable, "-m", "bench.jax_resharding", "--worker", str(turns)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert run.stdin is not None
        assert run.stdout is not None
        with run:
            run.stdin.write("".join(json.dumps(asdict(pair)) + "\n" for pair in block))
            run.stdin.close()
            done = 0
            for line in run.stdout:
                done += 1
                yield json.loads(line)
        remaining = remaining[done:]
        if run.returncode > 0:
            raise subprocess.CalledProcessError(run.returncode, run.args)
        if done < len(block):
            yield asdict(remaining[0]) | {"crashed": -run.returncode}
            remaining = remaining[1:]


def markdown(measured: Sequence[Row], about: Row) -> str:
    """The tables: every program on all pairs and on those where XLA's buffers are large; the worst.

    `about` says when and where the rows were measured.
    """
    right = [row for row in measured if "crashed" not in row]
    blown = [row for row in right if row["runners"][BASELINE]["buffer"] > row["tile"]]
    others = [row for row in right if row not in blown]
    text = f"{about['date']}, {about['cores']} cores of {about['cpu']}, load {about['load']}"
    lines = [
        f"# {DEVICES} virtual CPU devices, 64 MiB",
        "",
        f"{text}. XLA's time over that of the program: per pair the median over turns. A pair is a "
        "tie unless three of four of its own turns are on one side of 1.",
        "",
        *table(
            ["pairs", "program", "clock", "geometric mean", "median", "least", "largest",
             "faster / tie / slower", "received / bound"],
            [
                row
                for title, chosen in (
                    (f"all {len(right)} that communicate", right),
                    (f"{len(blown)} with an array of XLA's above both tiles", blown),
                    (f"the other {len(others)}", others),
                )
                for name in ("ours", "Shardy", "device_put")
                for row in _summary(title, name, chosen)
            ],
        ),
        "",
        f"XLA's compiler crashed on {len(measured) - len(right)} more.",
        "",
        *_slower(right),
    ]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


def _summary(title: str, name: str, chosen: Sequence[Row]) -> Iterator[list[Any]]:
    """The row of a program by each clock."""
    records = [(row["bound"], row["runners"][name]) for row in chosen]
    records = [(bound, record) for bound, record in records if "wall" in record]
    over = [r["received"] / bound for bound, r in records if "received" in r]
    for clock in ("wall", "cpu") if records else ():
        ratios = [record[clock]["median"] for _, record in records]
        seen = Counter(verdict(record[clock]) for _, record in records)
        yield [
            f"{title}" + f", of these {len(records)}" * (len(records) != len(chosen)),
            name,
            clock,
            *(f"{f(ratios):.2f}" for f in (geometric_mean, median, min, max)),
            " / ".join(str(seen[word]) for word in ("above", "tie", "below")),
            f"{geometric_mean(over):.2f}" if over else "-",
        ]


def _slower(right: Sequence[Row]) -> Iterator[str]:
    """The pairs on which ours is slower, and those of which a result is wrong."""
    for row in right:
        for name, record in row["runners"].items():
            if not record.get("right", True):
                yield f"WRONG: {name} on {row['mesh']}, {row['src']} to {row['dst']}\n"
    slower = [row for row in right if verdict(row["runners"]["ours"]["wall"]) == "below"]
    slower.sort(key=lambda row: float(row["runners"]["ours"]["wall"]["median"]))
    yield f"Ours is slower than XLA on {len(slower)}:\n"
    header = ["mesh", "source", "target", "steps", "ms", "XLA, ms", "ratio", "by CPU time"]
    body = []
    for row in slower:
        specs = ["; ".join(",".join(entry) or "-" for entry in row[end]) for end in ("src", "dst")]
        ours, wall = row["runners"]["ours"], row["runners"]["ours"]["wall"]
        body.append(
            ["x".join(map(str, row["mesh"])), *specs, ", ".join(row["steps"]), f"{wall['ms']:.1f}",
             f"{row['runners'][BASELINE]['wall']['ms']:.1f}",
             f"{wall['median']:.2f} [{wall['q1']:.2f}, {wall['q3']:.2f}]",
             f"{ours['cpu']['median']:.2f}"]
        )  # fmt: skip
    yield from table(header, body)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.jax_resharding", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"one pair in {QUICK}")
    parser.add_argument("--every", type=int, default=1, help="one pair in so many")
    parser.add_argument("--pairs", type=int, nargs="+", help="only these, by their number")
    parser.add_argument("--json", type=Path, help="where the rows go as JSON, and are found")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker)
        return
    known_pairs = [replace(pair, shape=SHAPES[len(pair.shape)]) for pair in pairs(DEVICES)]
    chosen = known_pairs[:: QUICK if options.quick else options.every]
    if options.pairs:
        chosen = [known_pairs[number] for number in options.pairs]
    file = options.json
    kept = json.loads(file.read_text()) if file and file.exists() else {"rows": []}
    about = {"date": str(date.today()), **machine()} | kept
    known: list[Row] = about.pop("rows")
    done = [pair_of(row) for row in known]
    start = time.monotonic()
    remaining = [pair for pair in chosen if pair not in done]
    for number, row in enumerate(rows(remaining, TURNS), 1):
        if row is not None:
            known.append(row)
        print(f"\r{number}/{len(remaining)} pairs", end="", file=sys.stderr, flush=True)
        if file:
            lines = ",\n".join(map(json.dumps, known))
            file.write_text(f'{json.dumps(about)[:-1]}, "rows": [\n{lines}\n]}}\n')
        if time.monotonic() - start > 60 * options.minutes:
            break
    print(file=sys.stderr)
    sys.stdout.write(markdown([row for row in known if pair_of(row) in chosen], about))


if __name__ == "__main__":
    main()
