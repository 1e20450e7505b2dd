"""A matrix of costs as a page: seconds from every source to every target, the dearer the redder."""

from __future__ import annotations

from math import isfinite, log

from redistrib import display
from redistrib.report.figures import format_seconds
from redistrib.report.html import Markup, element, fragment, wide
from redistrib.synth.oracle import CostMatrix

MAX_DRAWN = 40
"""Sources and targets that are shown."""


def _title(matrix: CostMatrix) -> str:
    rows, columns = matrix.seconds.shape
    return f"seconds from {rows} sources (down) to {columns} targets (across)"


@display.to_text.register
def matrix_text(matrix: CostMatrix) -> str:
    """The seconds of a matrix as text: a row for each source, targets by number below it."""
    times = [[_time(float(s)) for s in row] for row in matrix.seconds]
    names = [f"{number} {t}" for number, t in enumerate(matrix.sources)]
    widths = [max(map(len, column)) for column in zip(*times, strict=True)]
    side = max(map(len, names), default=0)
    lines = [
        f"{name:{side}}  " + "  ".join(map(str.rjust, row, widths))
        for name, row in zip(names, times, strict=True)
    ]
    targets = [f"target {number}: {t}" for number, t in enumerate(matrix.targets)]
    return "\n".join([_title(matrix), *targets, "", *lines])


@display.to_html.register
def matrix_html(matrix: CostMatrix) -> str:
    """The seconds of a matrix as an HTML fragment, as far as they fit."""
    seconds = matrix.seconds[:MAX_DRAWN, :MAX_DRAWN]
    paid = [float(s) for s in seconds.flat if 0 < s < float("inf")]
    least, most = min(paid, default=1.0), max(paid, default=1.0)
    sources, targets = (types[:MAX_DRAWN] for types in (matrix.sources, matrix.targets))
    lines = [element("tr", element("th"), *(element("th", str(t)) for t in targets))]
    lines += [
        element("tr", element("th", str(t)), *(_cell(float(s), least, most) for s in row))
        for t, row in zip(sources, seconds, strict=True)
    ]
    return fragment(element("h1", _title(matrix)), wide(element("table", *lines, class_="lined")))


def _time(seconds: float) -> str:
    return format_seconds(seconds) if isfinite(seconds) else "does not fit"


def _cell(seconds: float, least: float, most: float) -> Markup:
    if not seconds or not isfinite(seconds):
        return element("td", _time(seconds), class_="right")
    share = log(seconds / least) / log(most / least) if most > least else 0.0
    colour = f"background:hsl({130 - 130 * share:.0f} 60% 80%)"
    return element("td", _time(seconds), class_="right heat", style=colour)
