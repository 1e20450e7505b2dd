"""A plan of a whole model as one self-contained HTML page: figures, memory over time, every array.

No script and nothing from elsewhere; it follows the reader's light or dark mode.
"""

from __future__ import annotations

from html import escape

from redistrib.models.moves import ModelMoves

STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
div { overflow-x: auto }
table { border-collapse: collapse }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; white-space: nowrap }
td.number { text-align: right; font-variant-numeric: tabular-nums }
svg { width: 100%; height: 10rem } rect { fill: #4a7bd0 } line { stroke: #c33 }
"""


def to_html(plan: ModelMoves) -> str:
    """The page. Arrays of one form stand in one row, with the first and how many they are."""
    title = f"{len(plan.moves)} arrays on {len(plan.devices)} devices"
    figures = (
        ("received by the worst device", plan.received_bytes),
        ("at least", plan.lower_bound_bytes),
        ("sent by the worst device", plan.sent_bytes),
        ("most memory at once", plan.peak_bytes),
        ("least memory budget", plan.least_budget_bytes),
    )
    rows = "".join(
        f"<tr><th>{name}</th><td class=number>{bytes_:,} bytes</td></tr>"
        for name, bytes_ in figures
    )
    heads = "<th>target<th>how many<th>type<th>made of<th>in pieces"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        f"<h1>{title}</h1><table>{rows}</table><h2>Memory while the arrays move</h2>{_memory(plan)}"
        f"<h2>Arrays</h2><div><table><tr>{heads}</tr>{_arrays(plan)}</table></div></body></html>"
    )


def _memory(plan: ModelMoves) -> str:
    """A bar for each array: what is alive on the worst device while it moves, and the budget."""
    alive = plan.alive_bytes
    most = max([*alive, plan.memory_budget or 0, 1])
    width = 100 / max(len(alive), 1)
    bars = "".join(
        f'<rect x="{n * width:.3f}" width="{width * 0.9:.3f}" y="{100 - 100 * b / most:.2f}" '
        f'height="{100 * b / most:.2f}"><title>{escape(move.target)}: {b:,} bytes</title></rect>'
        for n, (move, b) in enumerate(zip(plan.moves, alive, strict=True))
    )
    if plan.memory_budget is not None:
        y = 100 - 100 * plan.memory_budget / most
        bars += f'<line x1="0" x2="100" y1="{y:.2f}" y2="{y:.2f}" stroke-width=".4"/>'
    label = f"from {min(alive, default=0):,} to {max(alive, default=0):,} bytes"
    return (
        f'<svg role="img" aria-label="{label}" viewBox="0 0 100 100" preserveAspectRatio="none">'
        f"{bars}</svg><p>{label}, without scratch</p>"
    )


def _arrays(plan: ModelMoves) -> str:
    forms: dict[tuple[int, str], list[int]] = {}
    for n, move in enumerate(plan.moves):
        forms.setdefault((id(move.steps), str(plan.dst[move.target])), []).append(n)
    rows = []
    for (_, type_text), numbers in forms.items():
        move = plan.moves[numbers[0]]
        names = list(dict.fromkeys(name for name, _ in move.sources))
        made = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        pieces = f"{len(move.steps)}{', irregular' if move.irregular else ''}"
        cells = (move.target, f"{len(numbers)}", type_text, made or "zeros", pieces)
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    return "".join(rows)
