"""The figures of bench.planning as a Markdown page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from redistrib.synth.planner.problem import Strategy

OURS: tuple[Strategy, ...] = ("collectives", "auto", "direct")
PRICE = "price"
SCALED = (*OURS, PRICE)
"""What is timed on larger and larger meshes."""
SHARDY, SHARDY_TEXT, DTENSOR = "Shardy", "Shardy, text out", "DTensor graph"
NOT_INSTALLED = "not installed"

Figures = dict[str, Any]


def markdown(figures: Figures) -> str:
    """The figures as a page."""
    about, versions = figures["machine"], figures["versions"]
    settings = figures["settings"]
    lines = [
        "# Planning time",
        "",
        f"{figures['date']}, `{figures['command']}`. {about['cores']} cores of {about['cpu']}, load"
        f" {about['load']}. " + ", ".join(f"{name} {v}" for name, v in versions.items()) + ".",
        "",
        "CPU microseconds of one cold call: median [quartiles] over pairs, of the median over "
        f"{settings['rounds']} rounds in which the planners take turns.",
        "",
        "## Against other planners",
        "",
        f"`{SHARDY}`: module text, parse, pass, done. `{SHARDY_TEXT}`: the text built from the "
        "layouts before, and the lowered module printed after. Ordered pairs of different layouts "
        "of whole axes, a seeded sample of each mesh.",
        "",
    ]
    names = [*OURS, SHARDY, SHARDY_TEXT, DTENSOR]
    lines += table(
        ["mesh, shape", "class", "pairs", *names],
        [
            [row["mesh"], row["class"], row["pairs"], *(cell(row["cpu_us"].get(n)) for n in names)]
            for row in figures["peers"]
        ],
    )
    alone = figures["back_to_back"]
    lines += [
        "",
        f"Each alone, {alone['pairs']} aligned pairs, {alone['calls']} calls of each in a row, so "
        "that its code and data stay in the processor's caches:",
        "",
        *table(
            ["planner", "time", "of Shardy"],
            [
                [name, cell(v), f"{v['median'] / alone['cpu_us'][SHARDY]['median']:.2g}"]
                for name, v in alone["cpu_us"].items()
            ],
        ),
        "",
        "## Same digits, more devices",
        "",
    ]
    lines += table(
        ["axes", "devices", "pairs", *SCALED, *(f"{s}, ratio per pair" for s in SCALED)],
        [
            [
                times_text(row["axes"]),
                f"{row['devices']:,}",
                row["pairs"],
                *(cell(row["cpu_us"][s]) for s in SCALED),
                *(cell(row["ratio"][s], 2) for s in SCALED),
            ]
            for row in figures["sizes"]
        ],
    )
    lines += ["", f"`{PRICE}`: `Oracle.cost`, by a new oracle.", "", "## More axes", ""]
    lines += ["Random pairs.", ""]
    lines += table(
        ["axes", "mesh", "devices", "pairs", *SCALED, SHARDY],
        [
            [
                len(row["mesh"]),
                times_text(row["mesh"]),
                f"{row['devices']:,}",
                row["pairs"],
                *(cell(row["cpu_us"][n]) for n in (*SCALED, SHARDY)),
            ]
            for row in figures["axes"]
        ],
    )
    lines += ["", "## Targets", "", "Ratios of medians, and of each pair.", ""]
    lines += table(
        ["what", "pairs", "ratio", "per pair", "target", "met"],
        [
            [
                entry["what"],
                entry.get("pairs", "-"),
                NOT_INSTALLED if entry["ratio"] is None else f"{entry['ratio']:.3g}",
                cell(entry.get("per_pair"), 2),
                f"at most {entry['target']:g}",
                {True: "yes", False: "NO", None: "-"}[entry["met"]],
            ]
            for entry in figures["verdicts"]
        ],
    )
    return "\n".join(lines) + "\n"


def cell(values: dict[str, float] | None, places: int = 0) -> str:
    """A median with its quartiles."""
    if values is None:
        return NOT_INSTALLED
    mid, low, high = (f"{values[key]:,.{places}f}" for key in ("median", "q1", "q3"))
    return f"{mid} [{low}, {high}]"


def table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(map(str, line))} |" for line in lines]


def times_text(axes: Iterable[int]) -> str:
    """Axis sizes as 2x4x2; runs of four and more as 2^12."""
    runs = [(size, len(list(group))) for size, group in groupby(axes)]
    return "x".join(f"{n}^{k}" if k >= 4 else "x".join([str(n)] * k) for n, k in runs)
