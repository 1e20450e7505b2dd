"""The paper's route beside ours:  python -m bench.paper_comparison [--pairs N] [--json FILE]

Seeded pairs of different whole-axis layouts on the meshes of the exhaustive checks, and on 16
devices. Per strategy: received bytes over the lower bound (geometric mean and worst, over the pairs
that communicate and that every strategy plans), collectives per plan, and CPU milliseconds of
planning (median over all pairs, each planned once, after a warm-up). In a cell of three figures
these are of paper / collectives / direct; direct always receives the bound. No strategy may use a
tile above both ends; one without such a plan counts under "no plan".

The arrays are small so that factors are tight, and the search of the paper looks at bytes first. So
ours is asked for the same: its latency is less than the time of one element.

Markdown on stdout, JSON on request, progress on stderr.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date
from math import exp, log
from pathlib import Path
from statistics import mean, median

import redistrib as rd
from bench.planners import types
from bench.problems import Problem, layouts
from bench.timing import geometric_mean, machine, settle, timed
from redistrib.demo.survey import SMALL_MESHES
from redistrib.synth.plan.links import Link
from redistrib.synth.plan.profile import Profile
from redistrib.synth.planner.problem import Strategy

STRATEGIES: tuple[Strategy, ...] = ("paper", "collectives", "direct")
MESHES = (*SMALL_MESHES, ((4, 4), (64, 64, 64)), ((2, 2, 4), (64, 64, 64)))
BYTES_FIRST = Profile("bytes first", Link(latency=1e-12, bandwidth=1e11))
SEED = 2112_01075


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one strategy on one mesh."""

    mesh: str
    shape: str
    strategy: str
    pairs: int
    compared: int
    no_plan: int
    mean_ratio: float
    worst_ratio: float
    collectives: float
    milliseconds: float


def sample(axes: tuple[int, ...], shape: tuple[int, ...], count: int) -> list[Problem]:
    """Seeded pairs of different layouts."""
    all_layouts = list(layouts(axes, shape))
    rng = random.Random(SEED)
    return [Problem(axes, shape, *rng.sample(all_layouts, 2)) for _ in range(count)]


def plan(src: rd.ArrayType, dst: rd.ArrayType, strategy: Strategy) -> tuple[rd.Plan | None, float]:
    """The plan, None if there is none within both ends, and the CPU milliseconds it took."""
    plans: list[rd.Plan] = []

    def call() -> None:
        with suppress(rd.InfeasibleError):
            plans.append(rd.plan(src, dst, strategy=strategy, profile=BYTES_FIRST))

    cpu = timed(call).cpu / 1e6
    return (plans[0] if plans else None), cpu


def compare(axes: tuple[int, ...], shape: tuple[int, ...], count: int) -> list[Row]:
    """One row per strategy."""
    pairs = [types(problem) for problem in sample(axes, shape, count)]
    for strategy in STRATEGIES:
        plan(*pairs[0], strategy)
    plans = {s: [plan(*pair, s) for pair in pairs] for s in STRATEGIES}
    everywhere = [
        number
        for number in range(count)
        if all(
            (chosen := plans[s][number][0]) is not None and chosen.lower_bound_bytes for s in plans
        )
    ]
    rows = []
    for strategy, planned in plans.items():
        shown = [chosen for number in everywhere if (chosen := planned[number][0]) is not None]
        ratios = [chosen.received_bytes / chosen.lower_bound_bytes for chosen in shown]
        rows.append(
            Row(
                ",".join(map(str, axes)),
                ",".join(map(str, shape)),
                strategy,
                count,
                len(everywhere),
                sum(chosen is None for chosen, _ in planned),
                geometric_mean(ratios),
                max(ratios),
                mean(chosen.num_collectives for chosen in shown),
                median(cpu for _, cpu in planned),
            )
        )
    return rows


def overall(rows: Sequence[Row]) -> list[Row]:
    """One row per strategy over all meshes; of milliseconds, the mean of the medians."""
    result = []
    for strategy in STRATEGIES:
        of_strategy = [row for row in rows if row.strategy == strategy]
        compared = sum(row.compared for row in of_strategy)
        logs = sum(log(row.mean_ratio) * row.compared for row in of_strategy)
        result.append(
            Row(
                "all",
                "",
                strategy,
                sum(row.pairs for row in of_strategy),
                compared,
                sum(row.no_plan for row in of_strategy),
                exp(logs / compared),
                max(row.worst_ratio for row in of_strategy),
                sum(row.collectives * row.compared for row in of_strategy) / compared,
                mean(row.milliseconds for row in of_strategy),
            )
        )
    return result


def markdown(rows: Sequence[Row], command: str) -> str:
    """The rows as a table, one line per mesh, below the date, the machine and the command."""
    about = machine()
    head = [
        f"`{command}`, {date.today()}, {about['cpu']}, {about['cores']} cores (load "
        f"{about['load']}), Python {platform.python_version()}.",
        "",
        "| mesh | array | pairs | "
        + " | ".join(f"{s}: received" for s in STRATEGIES[:2])
        + " | collectives per plan | planning, ms | no plan |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines = []
    for start in range(0, len(rows), len(STRATEGIES)):
        group = rows[start : start + len(STRATEGIES)]
        ratios = [f"{row.mean_ratio:.2f}, {row.worst_ratio:.2f}" for row in group[:2]]
        cells = [
            group[0].mesh,
            group[0].shape,
            f"{group[0].compared} of {group[0].pairs}",
            *ratios,
            " / ".join(f"{row.collectives:.2f}" for row in group),
            " / ".join(f"{row.milliseconds:.2g}" for row in group),
            " / ".join(str(row.no_plan) for row in group),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    for row in rows:
        # `direct` is one exchange at the bound: its column would be all ones.
        assert row.strategy != "direct" or row.mean_ratio == row.worst_ratio == 1
    return "\n".join([*head, *lines])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.paper_comparison", description=__doc__)
    parser.add_argument("--pairs", type=int, default=100, help="pairs per mesh")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    settle()
    rows: list[Row] = []
    for axes, shape in MESHES:
        rows += compare(axes, shape, options.pairs)
        print(f"{axes} done", file=sys.stderr)
    rows += overall(rows)
    command = f"python -m bench.paper_comparison --pairs {options.pairs}"
    print(markdown(rows, command))
    if options.json:
        figures = {"command": command, "date": str(date.today()), **machine()}
        text = json.dumps({**figures, "rows": [asdict(row) for row in rows]}, indent=1)
        options.json.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
