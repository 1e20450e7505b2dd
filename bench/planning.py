"""How long planning takes:  python -m bench.planning [--quick] [--json FILE] [--torch-python PATH]

1. Cold `rd.plan` on three-axis meshes and arrays of rank 3, against Shardy's reshard pass (jaxlib)
   and DTensor's graph-based planner (torch) on the same problems in the same run.
2. The same digits on small and large meshes: the time must not depend on the number of devices.
3. Meshes of 1 to 12 axes, of 65,536 devices at last.

In 2 and 3 also one price, `Oracle.cost` by a new oracle.

*Cold*: the types are built anew before each call, and nothing is remembered from call to call.
Figures are CPU microseconds, median [quartiles] over problems of the median over rounds. Markdown
on stdout, JSON on request, progress on stderr.

DTensor runs in a Python that has torch: --torch-python, or this one, or that of `make bench-peers`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import random
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import date
from math import prod
from pathlib import Path
from statistics import median
from typing import TypeVar

import redistrib as rd
from bench.peers import find_python
from bench.planners import DTensor, Shardy, ours, price, types
from bench.planning_page import (
    DTENSOR,
    NOT_INSTALLED,
    OURS,
    PRICE,
    SCALED,
    SHARDY,
    SHARDY_TEXT,
    Figures,
    markdown,
    times_text,
)
from bench.problems import Problem, all_pairs, random_pair
from bench.timing import Call, Prepare, Times, here, interleave, machine, medians, settle, spread
from redistrib.types.refinement import refine

MESHES = (
    ((2, 2, 2), (8, 8, 8)),
    ((2, 4, 2), (64, 64, 64)),
    ((2, 3, 2), (12, 12, 12)),
)
SCALES = (
    ((2, 2, 2), (8, 8, 8), (16, 16, 16), (32, 32, 64)),
    ((2, 2, 2, 2), (4, 4, 4, 4), (8, 8, 8, 8), (16, 16, 16, 16)),
)
LARGEST = (4, 4, 4, 4) + (2,) * 8
"""Twelve axes, 65,536 devices."""
RANK = 3
ALONE_CALLS = 10
SHARDY_TARGET = 5.0
DTENSOR_TARGET = 0.1
SCALE_TARGET = 2.0

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured: pairs per mesh, per size and per number of axes; rounds per pair."""

    pairs: int
    rounds: int
    scale_pairs: int
    axis_pairs: int
    max_axes: int
    seed: int = 0


FULL = Effort(pairs=60, rounds=5, scale_pairs=30, axis_pairs=20, max_axes=12)
QUICK = Effort(pairs=10, rounds=3, scale_pairs=4, axis_pairs=3, max_axes=12)


def run(effort: Effort, torch_python: str | None, command: str) -> Figures:
    """All figures of one run."""
    shardy = Shardy()
    problems = sample(effort)
    with DTensor(torch_python) if torch_python else nullcontext() as dtensor:
        settle()
        rows = peer_rows(effort, problems, shardy, dtensor)
        torch = dtensor.version if dtensor else NOT_INSTALLED
    aligned = [problem for problem in problems if refine(*types(problem)).aligned]
    alone = back_to_back(aligned[:: max(1, len(aligned) // effort.scale_pairs)], shardy)
    sizes = size_rows(effort)
    axes = axis_rows(effort, shardy)
    return {
        "program": "bench.planning",
        "date": str(date.today()),
        "command": command,
        "machine": machine(),
        "versions": {
            "python": platform.python_version(),
            "redistrib": rd.__version__,
            "jaxlib": importlib.metadata.version("jaxlib"),
            "torch": torch,
        },
        "settings": {name: getattr(effort, name) for name in Effort.__dataclass_fields__},
        "peers": summarise(rows),
        "back_to_back": alone,
        "sizes": sizes,
        "axes": axes,
        "verdicts": [*peer_verdicts(rows), *size_verdicts(sizes)],
        "pairs": rows,
    }


def sample(effort: Effort) -> list[Problem]:
    """Seeded pairs of different layouts on each mesh."""
    rng = random.Random(effort.seed)
    problems: list[Problem] = []
    for axes, shape in MESHES:
        pairs = all_pairs(axes, shape)
        problems += rng.sample(pairs, min(effort.pairs, len(pairs)))
    return problems


def peer_rows(
    effort: Effort, problems: list[Problem], shardy: Shardy, dtensor: DTensor | None
) -> list[Figures]:
    """Every planner on every problem: one row per pair."""
    rng = random.Random(effort.seed)
    rows = []
    for problem in progress("pairs", problems):
        calls: dict[str, Call] = {s: here(ours(problem, s)) for s in OURS}
        peers = {SHARDY: here(shardy.call(problem)), SHARDY_TEXT: here(shardy.text_call(problem))}
        if dtensor is not None:
            peers[DTENSOR] = dtensor.call(problem)
        src, dst = types(problem)
        rows.append(
            {
                "axes": list(problem.axes),
                "shape": list(problem.shape),
                "src": str(src),
                "dst": str(dst),
                "aligned": refine(src, dst).aligned,
                **split(interleave(calls, effort.rounds, rng, peers)),
            }
        )
    return rows


def split(times: Times) -> Figures:
    """Times as JSON: CPU and wall microseconds by name."""
    return {
        "cpu_us": {name: round(cpu, 2) for name, (cpu, _) in times.items()},
        "wall_us": {name: round(wall, 2) for name, (_, wall) in times.items()},
    }


def back_to_back(problems: list[Problem], shardy: Shardy) -> Figures:
    """Each planner in a loop of its own, its code and data in the processor's caches."""
    times_of: dict[str, list[float]] = {}
    for problem in problems:
        prepared: dict[str, Prepare] = {s: ours(problem, s) for s in OURS}
        prepared |= {SHARDY: shardy.call(problem), SHARDY_TEXT: shardy.text_call(problem)}
        for name, prepare in prepared.items():
            times = [here(prepare)() for _ in range(ALONE_CALLS)]
            times_of.setdefault(name, []).append(medians(times)[0])
    return {
        "pairs": len(problems),
        "calls": ALONE_CALLS,
        "cpu_us": {name: spread(values) for name, values in times_of.items()},
    }


def size_rows(effort: Effort) -> list[Figures]:
    """Pairs of layouts on meshes that differ in nothing but size: one row per mesh."""
    rng = random.Random(effort.seed)
    rows = []
    for meshes in SCALES:
        pairs: list[list[Problem]] = []
        while len(pairs) < effort.scale_pairs:
            small = random_pair(rng, meshes[0], (1,) * RANK)
            scaled = [Problem(axes, (prod(axes),) * RANK, small.src, small.dst) for axes in meshes]
            # Axes of unequal sizes are cut where those of a small mesh are not.
            if len({digit_counts(problem) for problem in scaled}) == 1:
                pairs.append(scaled)
        by_mesh: list[dict[str, list[float]]] = [{s: [] for s in SCALED} for _ in meshes]
        for scaled in progress(f"sizes of {len(meshes[0])} axes", pairs):
            calls = {
                f"{n} {s}": call
                for n, problem in enumerate(scaled)
                for s, call in scaled_calls(problem).items()
            }
            for name, (cpu, _) in interleave(calls, effort.rounds, rng).items():
                number, strategy = name.split()
                by_mesh[int(number)][strategy].append(cpu)
        rows += [
            {
                "axes": list(axes),
                "devices": prod(axes),
                "pairs": len(pairs),
                "cpu_us": {s: spread(values) for s, values in times.items()},
                "ratio": {
                    s: spread([b / a for a, b in zip(by_mesh[0][s], values, strict=True)])
                    for s, values in times.items()
                },
            }
            for axes, times in zip(meshes, by_mesh, strict=True)
        ]
    return rows


def scaled_calls(problem: Problem) -> dict[str, Call]:
    """Our planners, and the price."""
    return {**{s: here(ours(problem, s)) for s in OURS}, PRICE: here(price(problem))}


def digit_counts(problem: Problem) -> tuple[object, ...]:
    """What has to agree for two problems to have the same digits, up to their sizes."""
    refinement = refine(*types(problem))
    per_axis = [0] * len(problem.axes)
    for digit in refinement.axes:
        per_axis[ord(digit.axis) - ord("a")] += 1
    return refinement.aligned, tuple(map(len, refinement.dims)), tuple(per_axis)


def axis_rows(effort: Effort, shardy: Shardy) -> list[Figures]:
    """Random pairs on meshes of more and more axes: one row per mesh."""
    rng = random.Random(effort.seed)
    meshes = [(2,) * count for count in range(1, effort.max_axes + 1)]
    rows = []
    for axes in progress("axes", [*meshes, LARGEST]):
        times_of: dict[str, list[float]] = {}
        for _ in range(effort.axis_pairs):
            problem = random_pair(rng, axes, (prod(axes),) * RANK)
            peers = {SHARDY: here(shardy.call(problem))}
            times = interleave(scaled_calls(problem), effort.rounds, rng, peers)
            for name, (cpu, _) in times.items():
                times_of.setdefault(name, []).append(cpu)
        rows.append(
            {
                "mesh": list(axes),
                "devices": prod(axes),
                "pairs": effort.axis_pairs,
                "cpu_us": {name: spread(values) for name, values in times_of.items()},
            }
        )
    return rows


def by_class(rows: list[Figures]) -> Iterator[tuple[str, list[Figures]]]:
    """All rows, and the aligned and the misaligned ones where there are both."""
    kinds: dict[str, list[Figures]] = {"aligned": [], "misaligned": []}
    for row in rows:
        kinds["aligned" if row["aligned"] else "misaligned"].append(row)
    if not all(kinds.values()):
        kinds = {}
    yield from {"all": rows, **kinds}.items()


def summarise(rows: list[Figures]) -> list[Figures]:
    """Spread per mesh and class, then over all meshes."""
    meshes = {
        f"{times_text(axes)} {list(shape)}": [row for row in rows if row["axes"] == list(axes)]
        for axes, shape in MESHES
    }
    return [
        {
            "mesh": mesh,
            "class": kind,
            "pairs": len(chosen),
            **{
                clock: {n: spread([row[clock][n] for row in chosen]) for n in chosen[0][clock]}
                for clock in ("cpu_us", "wall_us")
            },
        }
        for mesh, on_mesh in {**meshes, "all meshes": rows}.items()
        for kind, chosen in by_class(on_mesh)
    ]


def peer_verdicts(rows: list[Figures]) -> list[Figures]:
    """Our medians over a peer's, with the spread of the ratio over pairs."""
    peers = ((SHARDY, SHARDY_TARGET), (SHARDY_TEXT, SHARDY_TARGET), (DTENSOR, DTENSOR_TARGET))
    result = []
    for peer, target in peers:
        for strategy in OURS[:2]:
            for kind, of_kind in by_class(rows):
                label = f"{strategy} / {peer}, {kind} pairs"
                chosen = [row["cpu_us"] for row in of_kind]
                if peer not in chosen[0]:
                    result.append({"what": label, "ratio": None, "target": target, "met": None})
                    continue
                ratio = median(t[strategy] for t in chosen) / median(t[peer] for t in chosen)
                result.append(
                    verdict(label, ratio, target, [t[strategy] / t[peer] for t in chosen])
                )
    return result


def size_verdicts(rows: list[Figures]) -> list[Figures]:
    """The median on the largest mesh over that on the smallest."""
    result = []
    for meshes in SCALES:
        first, last = (
            next(row for row in rows if row["axes"] == list(axes))
            for axes in (meshes[0], meshes[-1])
        )
        for s in SCALED:
            label = f"{s}, {last['devices']:,} devices / {first['devices']}"
            ratio = last["cpu_us"][s]["median"] / first["cpu_us"][s]["median"]
            entry = verdict(label, ratio, SCALE_TARGET, [1.0])
            result.append({**entry, "pairs": first["pairs"], "per_pair": last["ratio"][s]})
    return result


def verdict(label: str, ratio: float, target: float, per_pair: Sequence[float]) -> Figures:
    """A ratio of medians beside what it must not exceed."""
    ratio = round(ratio, 4)
    return {
        "what": label,
        "pairs": len(per_pair),
        "ratio": ratio,
        "per_pair": spread(per_pair),
        "target": target,
        "met": ratio <= target,
    }


def progress(label: str, items: Sequence[_T]) -> Iterable[_T]:
    """The items, with a count and the time left on stderr."""
    start = time.monotonic()
    for number, item in enumerate(items):
        if number and sys.stderr.isatty():
            seconds_left = (time.monotonic() - start) / number * (len(items) - number)
            sys.stderr.write(
                f"\rplanning, {label}: {number}/{len(items)}, {seconds_left:.0f} s left   "
            )
            sys.stderr.flush()
        yield item
    sys.stderr.write(f"\rplanning, {label}: {len(items)} in {time.monotonic() - start:.0f} s   \n")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.planning",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="few pairs: under a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.add_argument("--torch-python", metavar="PATH", help="a Python that has torch")
    parser.add_argument("--pairs", type=int, metavar="N", help="pairs per row of every table")
    options = parser.parse_args(arguments)
    effort = QUICK if options.quick else FULL
    if options.pairs is not None:
        n = options.pairs
        effort = replace(effort, pairs=n, scale_pairs=n, axis_pairs=n)
    # The command without machine paths.
    command = "python -m bench.planning" + " --quick" * options.quick
    if options.pairs is not None:
        command += f" --pairs {options.pairs}"
    figures = run(effort, find_python(["torch"], options.torch_python), command)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    sys.stdout.write(markdown(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
