"""A plan of a whole model as a page: figures, memory over time, every array."""

from __future__ import annotations

from redistrib import display
from redistrib.models.figures import ModelFigures
from redistrib.report.figures import format_bytes, format_seconds
from redistrib.report.html import Markup, element, figures, fragment, table


@display.to_html.register
def model_html(plan: ModelFigures) -> str:
    """The plan as an HTML fragment.

    Arrays of one form stand in one row, with the first and how many they are.
    """
    about = [
        ("received", f"{format_bytes(plan.received_bytes)} by the worst device"),
        ("at least", format_bytes(plan.lower_bound_bytes)),
        ("sent", f"{format_bytes(plan.sent_bytes)} by the worst device"),
        ("most memory at once", format_bytes(plan.peak_bytes)),
        ("least memory budget", format_bytes(plan.least_budget_bytes)),
        ("time", f"{format_seconds(plan.seconds)} estimated, profile {plan.profile.name}"),
    ]
    heads = ("target", "how many", "type", "made of", "in pieces")
    return fragment(
        element("h1", f"{len(plan.moves)} arrays on {len(plan.devices)} devices"),
        figures(about),
        element("h2", "Memory while the arrays move"),
        _memory(plan),
        element("h2", "Arrays"),
        table(heads, _arrays(plan), ("how many",)),
    )


def _memory(plan: ModelFigures) -> Markup:
    """A bar for each array: what is alive on the worst device while it moves, and the budget."""
    alive = plan.alive_bytes
    most = max([*alive, plan.memory_budget or 0, 1])
    width = 100 / max(len(alive), 1)
    bars = [
        element(
            "rect",
            element("title", f"{move.target}: {format_bytes(size)}"),
            x=f"{n * width:.3f}",
            width=f"{width * 0.9:.3f}",
            y=f"{100 - 100 * size / most:.2f}",
            height=f"{100 * size / most:.2f}",
            fill="#2f5fb3",
        )
        for n, (move, size) in enumerate(zip(plan.moves, alive, strict=True))
    ]
    if plan.memory_budget is not None:
        y = f"{100 - 100 * plan.memory_budget / most:.2f}"
        bars.append(element("line", x1=0, x2=100, y1=y, y2=y, stroke="#c33", stroke_width=".6"))
    least, largest = (format_bytes(size) for size in (min(alive, default=0), max(alive, default=0)))
    label = f"from {least} to {largest}, without scratch"
    return element(
        "figure",
        element(
            "svg",
            *bars,
            role="img",
            aria_label=label,
            viewBox="0 0 100 100",
            preserveAspectRatio="none",
            style="width:100%;height:9rem",
        ),
        element("figcaption", label),
    )


def _arrays(plan: ModelFigures) -> list[tuple[str, ...]]:
    forms: dict[tuple[int, str], list[int]] = {}
    for n, move in enumerate(plan.moves):
        forms.setdefault((id(move.steps), str(plan.dst[move.target])), []).append(n)
    rows: list[tuple[str, ...]] = []
    for (_, type_text), numbers in forms.items():
        move = plan.moves[numbers[0]]
        names = list(dict.fromkeys(name for name, _ in move.sources))
        sources = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        pieces = f"{len(move.steps)}{', irregular' if move.irregular else ''}"
        rows.append((move.target, f"{len(numbers)}", type_text, sources or "zeros", pieces))
    return rows
