"""How long prices take:  python -m bench.oracle [--quick | --mesh MESH] [--json FILE]

1. `cost_matrix` of a fresh oracle over all pairs of whole-axis layouts of arrays of rank 3, per
   pair, beside Shardy's reshard pass on a sample of the same pairs (the pass alone, parsed before).
2. One `cost`: cold (fresh types, fresh oracle) beside Shardy's whole Python call (`shardy_call`:
   module text to module; `shardy_text`: layouts to the text of the steps), and remembered.
3. A single answer over the closed matrix: that of the planner alone, the largest ratio of all pairs
   and the share above 1.05, and that of `cost`, on the 100 pairs that the first is worst at and
   100 others; and what one such `cost` takes on a fresh oracle.
4. Pairs whose digits do not match: a matrix, and `cost`, beside the planner.
5. Alpa's published formula on the layouts of an MLP and an attention block on a 2x4 mesh: what it
   answers, and what the oracle answers.
6. Matrices with every partial set on 4x4x2, over equal and unequal links, per pair, with nothing
   remembered; and lines of `redistrib cost` a second, 2,000 questions cold and again.

CPU time of the process; the calls that are compared take turns.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations, product
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import redistrib as rd
from bench.planners import PASS, Shardy, forget, types
from bench.problems import Problem, axis_names, layouts, random_pair
from bench.timing import machine, settle
from redistrib.cli.questions import answers
from redistrib.types.refinement import refine

FAMILIES = (
    ((2, 2, 2), (4096,) * 3),
    ((2, 4, 2), (4096,) * 3),
    ((2, 2, 2, 2), (4096,) * 3),
    ((2, 4, 2, 4), (4096,) * 3),
    ((4, 4, 4), (4096,) * 3),
    ((2, 3, 2), (4608,) * 3),
)
QUICK = (0, 1, 2)
PER_PAIR_TARGET = 1 / 5  # of Shardy's pass
COLD_TARGET = 2.0  # of Shardy's call
WARM_TARGET_US = 2.5  # half of DTensor's fastest warm redistribute_cost, 5 us (torch 2.13)

Figures = dict[str, Any]


def family(axes: Sequence[int], shape: Sequence[int]) -> list[rd.ArrayType]:
    """All whole-axis layouts as types."""
    names = axis_names(len(axes))
    mesh = rd.Mesh(dict(zip(names, axes, strict=True)))
    return [
        rd.ArrayType(mesh, "f32", shape, [[names[axis] for axis in owners] for owners in layout])
        for layout in layouts(tuple(axes), tuple(shape))
    ]


def seconds(call: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def matrix_rows(shardy: Shardy, rounds: int, sample: int, families: Sequence[int]) -> list[Figures]:
    """One row per family: microseconds per pair."""
    rows = []
    rng = random.Random(0)
    for number in families:
        axes, shape = FAMILIES[number]
        types = family(axes, shape)
        texts = [shardy.text(random_pair(rng, axes, shape)) for _ in range(sample)]
        ours, theirs, last = [], [], None
        for _ in range(rounds):
            last = rd.Oracle(types[0].mesh)
            ours.append(seconds(partial(last.cost_matrix, types, types)))
            theirs.append(median(pass_times(shardy, texts)))
        assert last is not None
        per_pair = median(ours) / len(types) ** 2 * 1e6
        shardy_us = median(theirs) * 1e6
        rows.append(
            {
                "mesh": "x".join(map(str, axes)),
                "layouts": len(types),
                "pairs": len(types) ** 2,
                "priced": last.stats.batched_prices,
                "seconds": median(ours),
                "us_per_pair": per_pair,
                "shardy_us": shardy_us,
                "ratio": per_pair / shardy_us,
                "target": PER_PAIR_TARGET,
            }
        )
    return rows


def pass_times(shardy: Shardy, texts: Sequence[str]) -> list[float]:
    """Seconds of Shardy's pass on modules that are parsed already."""
    ir, context = shardy._ir, shardy._context  # noqa: SLF001
    times = []
    with context:
        manager = shardy._pass_manager.parse(PASS)  # noqa: SLF001
        for text in texts:
            module = ir.Module.parse(text)
            times.append(seconds(partial(manager.run, module.operation)))
    return times


def single_row(shardy: Shardy, rounds: int, count: int) -> Figures:
    """One `cost`: cold beside Shardy's call on the same pairs, and remembered."""
    rng = random.Random(1)
    problems = [
        random_pair(rng, axes, (prod(axes) * 8,) * 3)
        for axes in ((2, 2, 2), (2, 4, 2))
        for _ in range(count)
    ]
    cold, theirs, texts, warm = [], [], [], []
    for problem in problems:
        mine, peer, text = [], [], []
        call, text_call = shardy.call(problem), shardy.text_call(problem)
        for _ in range(rounds):
            mine.append(seconds(cold_call(problem)))
            peer.append(seconds(call()))
            text.append(seconds(text_call()))
        cold.append(median(mine))
        theirs.append(median(peer))
        texts.append(median(text))
        src, dst = types(problem)
        oracle = rd.Oracle(src.mesh)
        oracle.cost(src, dst)
        start = time.process_time()
        for _ in range(1000):
            oracle.cost(src, dst)
        warm.append((time.process_time() - start) / 1000)
    ratios = [a / b for a, b in zip(cold, theirs, strict=True)]
    return {
        "pairs": len(problems),
        "cold_us": median(cold) * 1e6,
        "shardy_call_us": median(theirs) * 1e6,
        "shardy_text_us": median(texts) * 1e6,
        "ratio": median(cold) / median(theirs),
        "ratio_per_pair": median(ratios),
        "cold_target": COLD_TARGET,
        "warm_us": median(warm) * 1e6,
        "warm_target_us": WARM_TARGET_US,
    }


def cold_call(problem: Problem) -> Callable[[], object]:
    """`cost` on types and an oracle that are new."""
    src, dst = types(problem)
    forget()
    oracle = rd.Oracle(src.mesh)
    return lambda: oracle.cost(src, dst)


# --- single costs beside the closed matrix -------------------------------------------------------

DETOUR_FAMILIES = tuple(
    (axes, (side,) * 3) for axes in ((2, 2, 2), (2, 4, 2), (2, 4, 8)) for side in (64, 4096)
)


def links() -> list[rd.Profile]:
    """Equal links, one of them 10 and 100 times slower, and three speeds."""
    default = rd.Link(1e-6, 1e11)
    slower = [
        rd.Profile(f"a {n}x slower", default, axes=(("a", rd.Link(1e-6, 1e11 / n)),))
        for n in (10, 100)
    ]
    speeds = {"a": rd.Link(1e-5, 1e9), "b": rd.Link(3e-6, 1e12), "c": rd.Link(3e-6, 3e10)}
    three = rd.Profile("three speeds", rd.Link(1e-6, 1e12), axes=tuple(speeds.items()))
    return [rd.Profile("equal", default), *slower, three]


def detour_rows() -> list[Figures]:
    """Per family and profile by how much a single answer exceeds the closed matrix."""
    rows = []
    rng = random.Random(0)
    for axes, shape in DETOUR_FAMILIES:
        types = family(axes, shape)
        count = len(types)
        for profile in links():
            mesh = types[0].mesh
            closed = rd.Oracle(mesh, profile).cost_matrix(types, types).ravel()
            planner = rd.Oracle(mesh, profile, effort="fast")
            alone = planner.cost_vector([t for t in types for _ in types], types * count)
            ratios = np.divide(alone, closed, out=np.ones_like(alone), where=closed > 0)
            some = [*np.argsort(-ratios)[:100].tolist(), *rng.sample(range(count**2), 100)]
            single: list[float] = []
            times: list[float] = []
            for pair in some:
                if closed[pair]:
                    src, dst = types[pair // count], types[pair % count]
                    start = time.process_time()
                    seconds = rd.Oracle(mesh, profile).cost(src, dst).seconds
                    times.append(time.process_time() - start)
                    single.append(seconds / closed[pair])
            rows.append(
                {
                    "mesh": "x".join(map(str, axes)),
                    "side": shape[0],
                    "links": profile.name,
                    "planner": float(ratios.max()),
                    "above_1.05": f"{(ratios > 1.05).mean():.1%}",
                    "cost": max(single),
                    "ms": sum(times) / len(times) * 1e3,
                }
            )
    return rows


MISALIGNED = ((2, 3, 2), (48, 4608))
"""Pairs of this mesh without matching digits: a matrix of many prices them as exchanges."""


def misaligned_rows(count: int = 60) -> list[Figures]:
    """Per size and profile a matrix and single answers beside the planner, on a sample of pairs."""
    axes, sides = MISALIGNED
    rows = []
    rng = random.Random(0)
    for side, profile in product(sides, links()):
        types = family(axes, (side,) * 3)
        mesh = types[0].mesh
        start = time.process_time()
        closed = rd.Oracle(mesh, profile).cost_matrix(types, types)
        spent = time.process_time() - start
        planned: list[float] = []
        single: list[float] = []
        times: list[float] = []
        while len(single) < count:
            row, column = rng.choices(range(len(types)), k=2)
            src, dst = types[row], types[column]
            if refine(src, dst).aligned:
                continue
            planned.append(closed[row, column] / rd.cost(src, dst, profile=profile).seconds)
            oracle = rd.Oracle(mesh, profile)
            start = time.process_time()
            single.append(oracle.cost(src, dst).seconds / closed[row, column])
            times.append(time.process_time() - start)
        rows.append(
            {
                "mesh": "x".join(map(str, axes)),
                "side": side,
                "links": profile.name,
                "matrix_seconds": spent,
                "matrix_over_planner": max(planned),
                "in_the_mean": sum(planned) / count,
                "cost": max(single),
                "ms": sum(times) / count * 1e3,
            }
        )
    return rows


# --- Alpa's formula ----------------------------------------------------------------------------

MLP = ((128, 1024), (1024, 1024))
ATTENTION = ((8, 128, 1024), (1024, 1024), (8, 128, 16, 64), (128, 64, 128), (128, 128, 128))
MESH = (2, 4)


def alpa(shape: Sequence[int], src: Layout, dst: Layout) -> float | None:
    """Seconds by the formula of Alpa's published prototype; None where it has no answer.

    A gather for each dimension that loses its axis, of the whole array, at 1 us and 100 GB/s. The
    prototype maps a dimension to one axis: of a dimension over two it says nothing.
    """
    if any(len(owners) > 1 for owners in (*src, *dst)):
        return None
    size = prod(shape) * 4
    return sum(
        1e-6 + (MESH[a[0]] - 1) / MESH[a[0]] * size / 1e11
        for a, b in zip(src, dst, strict=True)
        if a and a != b
    )


Layout = Sequence[Sequence[int]]


def alpa_rows() -> list[Figures]:
    """The two question sets: every pair of layouts of every tensor."""
    rows = []
    for name, shapes in (("MLP", MLP), ("attention", ATTENTION)):
        answers: list[tuple[float | None, float]] = []
        violations = triples = 0
        for shape in shapes:
            numbered = list(layouts(MESH, shape))
            typed = family(MESH, shape)
            ours = rd.Oracle(typed[0].mesh).cost_matrix(typed, typed)
            theirs = [[alpa(shape, a, b) for b in numbered] for a in numbered]
            answers += [
                (theirs[i][j], float(ours[i, j]))
                for i, j in product(range(len(numbered)), repeat=2)
                if i != j
            ]
            known = np.array([[np.nan if x is None else x for x in row] for row in theirs])
            for k in range(len(numbered)):
                detour = known[:, k, None] + known[k]
                triples += int(np.isfinite(detour + known).sum())
                violations += int((known > detour * (1 + 1e-9)).sum())
        both = [(a, b) for a, b in answers if a is not None]
        rows.append(
            {
                "set": name,
                "pairs": len(answers),
                "alpa_no_answer": len(answers) - len(both),
                "ours_finite": sum(np.isfinite(b) for _, b in answers),
                "alpa_too_low": sum(a < b * (1 - 1e-9) for a, b in both),
                "alpa_over_ours": median(a / b for a, b in both if b > 0),
                "alpa_detours": f"{violations} of {triples}",
            }
        )
    return rows


# --- report ------------------------------------------------------------------------------------


def sum_rows(sides: Sequence[int]) -> list[Figures]:
    """A matrix of all layouts of whole axes with every set of free axes partial."""
    rows = []
    for side, profile in product(sides, (None, "dgx-h100")):
        types = [
            t.replace(partial=chosen)
            for t in family((4, 4, 2), (side,) * 3)
            for count in range(len(t.free_digits) + 1)
            for chosen in combinations(t.free_digits, count)
        ]
        forget()
        oracle = rd.Oracle(types[0].mesh, profile)
        took = seconds(partial(oracle.cost_matrix, types, types, closed=False))
        rows.append(
            {
                "side": side,
                "profile": profile or "default",
                "pairs": len(types) ** 2,
                "priced": oracle.stats.batched_prices,
                "us a pair": took / len(types) ** 2 * 1e6,
            }
        )
    return rows


def line_row(count: int) -> Figures:
    """Questions a second that `redistrib cost` answers, each once and then all again."""
    rng = random.Random(0)
    families = [family((4, 4, 2), shape) for shape in ((64,) * 3, (4096, 1024, 512))]
    lines = []
    for number in range(count):
        src, dst = rng.choices(rng.choice(families), k=2)
        question = {"id": number, "mesh": dict(src.mesh.axes), "src": str(src), "dst": str(dst)}
        lines.append(json.dumps(question))
    forget()
    answered = answers([*lines, *lines])
    cold = seconds(lambda: [next(answered) for _ in lines])
    again = seconds(lambda: [next(answered) for _ in lines])
    return {"lines": count, "cold a second": count / cold, "again a second": count / again}


def run(quick: bool, only: str | None = None) -> Figures:
    """All figures, or the matrix of one mesh."""
    shardy = Shardy()
    warm_up = family((2, 2), (8, 8))
    rd.Oracle(warm_up[0].mesh).cost_matrix(warm_up, warm_up)
    settle()
    if only is not None:
        number = ["x".join(map(str, axes)) for axes, _ in FAMILIES].index(only)
        return {"matrix": matrix_rows(shardy, 2, 50, [number])}
    return {
        "command": "python -m bench.oracle" + " --quick" * quick,
        "machine": machine(),
        "matrix": matrix_rows(
            shardy,
            2 if quick else 5,
            50 if quick else 200,
            QUICK if quick else range(len(FAMILIES)),
        ),
        "single": single_row(shardy, 3 if quick else 7, 10 if quick else 60),
        "detours": [] if quick else detour_rows(),
        "misaligned": [] if quick else misaligned_rows(),
        "alpa": alpa_rows(),
        "sums": sum_rows((4096,) if quick else (64, 4096)),
        "lines": line_row(200 if quick else 2000),
    }


def table(rows: Sequence[Figures]) -> str:
    """Rows of figures as a Markdown table."""

    def text(value: object) -> str:
        return f"{value:.3g}" if isinstance(value, float) else "" if value is None else f"{value}"

    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([text(row[key]) for key in head] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.oracle",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="three of the families, few rounds")
    meshes = ["x".join(map(str, axes)) for axes, _ in FAMILIES]
    parser.add_argument("--mesh", choices=meshes, help="one family alone, few rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    options = parser.parse_args(arguments)
    figures = run(options.quick, options.mesh)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    for name in ("matrix", "single", "detours", "misaligned", "alpa", "sums", "lines"):
        rows = figures.get(name)
        if not rows:
            continue
        print(f"\n{name}\n\n{table(rows if isinstance(rows, list) else [rows])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
