"""Two runs beside each other, as lines of the page: are the verdicts the same?"""

from __future__ import annotations

from typing import Any

from bench.planning_page import table
from bench.summary import PAPER_MEAN, standing

Figures = dict[str, Any]

BESIDE_XLA = {"above": "faster than XLA", "tie": "a tie with XLA", "below": "slower than XLA"}
BESIDE_PAPER = {"above": "above", "tie": "a tie with", "below": "below"}


def beside_paper(figure: Figures, paper: float) -> str:
    """Where a speed-up with its interval is beside one of the paper's."""
    return f"{BESIDE_PAPER[standing(figure, paper)]} the paper's {paper}x"


def mean_text(speed: Figures) -> str:
    """A mean and its interval; one pair has none."""
    inside = f" [{speed['low']:.3g}, {speed['high']:.3g}]" if speed["high"] < 1e3 else ""
    return f"{speed['mean']:.3g}{inside}"


def within(entry: Figures) -> bool:
    """Whether a new mean lies in the interval of the old one."""
    then: Figures = entry["then"]
    return bool(then["low"] <= entry["now"]["mean"] <= then["high"])


def against_lines(found: Figures) -> list[str]:
    """Whether the verdicts of this run are those of an earlier one: means, then pairs."""
    means, machine = found["means"], found["machine"]
    verdicts = [m["verdicts"] for m in means]
    lines = [
        f"## Against {found['date']}",
        "",
        f"Commit {found['commit']}, {machine['cores']} cores of {machine['cpu']}, load "
        f"{machine['load']} at the start; the {found['workloads']} workloads of both runs.",
        "",
        *(f"- {verdict_text(m)}" for m in means if m["runner"] == "ours"),
        f"- All means: {sum(a == b for a, b in verdicts)} of {len(means)} verdicts beside XLA are "
        f"the same, {sum({'above', 'below'} == set(pair) for pair in verdicts)} are opposite; "
        f"{sum(map(within, means))} of {len(means)} are within the earlier spread.",
        "",
        "*Spread* of a mean: its 95% interval in the earlier run. *Now / then*: the geometric mean "
        "over pairs, and its own 95% interval, widened by what XLA's mean over itself is off 1 in "
        "both runs; narrower, for it compares pair by pair.",
        "",
    ]
    header = [
        "set",
        "runner",
        "pairs",
        "then",
        "now",
        "verdicts",
        "within the spread",
        "now / then",
    ]
    body = [
        [
            f"({m['set']}) {m['title']}",
            m["runner"],
            m["pairs"],
            mean_text(m["then"]),
            mean_text(m["now"]),
            ", ".join(m["verdicts"]),
            "yes" if within(m) else "NO",
            mean_text(m["ratio"]),
        ]
        for m in means
    ]
    return [*lines, *table(header, body), "", *pair_lines(found.get("pairs", []))]


def verdict_text(entry: Figures) -> str:
    """Ours on one set of pairs, in words: verdicts beside XLA and the paper, then and now."""
    speeds = [entry["then"], entry["now"]]
    said = [
        [BESIDE_XLA[word], beside_paper(speed, PAPER_MEAN)]
        for word, speed in zip(entry["verdicts"], speeds, strict=True)
    ]
    then, now = (" and ".join(words) for words in said)
    spread = "within" if within(entry) else "NOT within"
    return (
        f"({entry['set']}) {entry['title']}: "
        + (f"the SAME verdicts, {now}" if then == now else f"OTHER verdicts: {then}; now {now}")
        + f". Ours was {mean_text(speeds[0])}x and is {mean_text(speeds[1])}x, {spread} the spread."
    )


def pair_lines(pairs: list[Figures]) -> list[str]:
    """How many pairs changed, per runner; those of ours by name."""
    if not pairs:
        return []
    lines = [
        "Pair by pair. *Beyond the spread*: the medians differ by more than a factor of "
        f"{pairs[0]['spread']:.3g}, the noise of both runs together, and the quartiles do not "
        "overlap.",
        "",
        *table(
            [
                "runner",
                "pairs",
                "same verdict",
                "to or from a tie",
                "opposite",
                "beyond the spread",
            ],
            [
                [
                    entry["runner"],
                    entry["pairs"],
                    entry["pairs"] - len(entry["changed"]),
                    sum("tie" in pair["verdicts"] for pair in entry["changed"]),
                    sum("tie" not in pair["verdicts"] for pair in entry["changed"]),
                    len(entry["beyond"]),
                ]
                for entry in pairs
            ],
        ),
        "",
    ]
    ours = [entry for entry in pairs if entry["runner"] == "ours"]
    named = {p["name"]: p for entry in ours for p in (*entry["changed"], *entry["beyond"])}
    if named:
        lines += [
            "Of ours, the pairs that changed:",
            "",
            *table(
                ["workload", "then", "now", "verdicts"],
                [
                    [
                        name,
                        *(quartiles(p[key]) for key in ("then", "now")),
                        ", ".join(p["verdicts"]),
                    ]
                    for name, p in named.items()
                ],
            ),
            "",
        ]
    return lines


def quartiles(speed: Figures) -> str:
    """A pair's speed-up with its quartiles."""
    return f"{speed['median']:.3g} [{speed['q1']:.3g}, {speed['q3']:.3g}]"
