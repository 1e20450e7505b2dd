"""A plan as a page: its figures, its steps one by one, memory over the steps, and the alternatives.

A step shows the type before it, who sends what to whom, and the type after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from shlex import quote

from redistrib import display
from redistrib.errors import RedistribError
from redistrib.report.figures import format_bytes, format_seconds
from redistrib.report.html import (
    Markup,
    arrows,
    bars,
    details,
    element,
    figures,
    fragment,
    join,
    key,
    layout,
    stepper,
    table,
)
from redistrib.report.movement import movement
from redistrib.report.plan_text import COLUMNS, RIGHT_ALIGNED, header, plan_text, rows
from redistrib.synth.plan.data import Plan
from redistrib.synth.planner.choose import Explanation, explain
from redistrib.types.array_type import ArrayType

heading = partial(element, "h2")


@display.to_html.register
def plan_html(plan: Plan) -> str:
    """A plan as an HTML fragment, with what else there was to choose from."""
    return fragment(*plan_parts(plan))


def plan_parts(plan: Plan) -> Iterator[Markup]:
    """The parts of the page of a plan, for a page that has more on it."""
    yield from _plan(plan)
    yield from _alternatives(plan)
    yield from _text(plan)


@display.to_html.register
def explanation_html(explanation: Explanation) -> str:
    """All that a plan was chosen from as an HTML fragment, and the plan."""
    why = heading("Alternatives"), _explained(explanation)
    return fragment(*_plan(explanation.plan), *why, *_text(explanation.plan))


def _plan(plan: Plan) -> Iterator[Markup]:
    yield element("h1", element("code", f"{plan.src} -> {plan.dst}"))
    yield figures(header(plan))
    yield heading("Step by step")
    if plan.steps:
        yield stepper("steps of the plan", list(_panels(plan)))
        yield heading("Memory")
        yield _memory(plan)
        yield heading("Steps")
        numbered = ((str(number), *row) for number, row in enumerate(rows(plan)))
        yield table(("", *COLUMNS), numbered, RIGHT_ALIGNED)
    else:
        yield element("p", "Nothing to do.")
        yield layout(plan.src, "source and target")


def _text(plan: Plan) -> Iterator[Markup]:
    yield heading("As text")
    yield element("pre", _command(plan))
    yield details("the report", element("pre", plan_text(plan, "full")))


def _panels(plan: Plan) -> Iterator[tuple[str, Markup]]:
    ends = join((layout(plan.src, "source"), layout(plan.dst, "target")))
    yield "source and target", element("div", ends, class_="scene")
    for index, step in enumerate(plan.steps):
        before, after = plan.types[index : index + 2]
        moved = movement(step, before, after)
        words = "No data moves: every device has what it needs." if moved is None else moved.words
        scene: list[Markup] = [
            layout(before, f"after step {index}" if index else "source"),
            *([] if moved is None else [arrows(moved)]),
            layout(after, f"after step {index + 1}"),
        ]
        summary = element("p", words)
        yield (
            f"{index + 1} {step.collective}",
            join((summary, element("div", *scene, class_="scene"))),
        )


def _memory(plan: Plan) -> Markup:
    """The tiles alive in each step, below what one tile may be at most."""
    source = plan.src.tile_bytes
    largest = max(source, plan.dst.tile_bytes)
    limit = largest if plan.memory_limit is None else plan.memory_limit
    lines: list[tuple[str, list[tuple[str, int]]]] = [
        ("bound on one tile", [("bound", limit)]),
        ("source", [("held", source)]),
    ]
    for index, (step, before, after) in enumerate(
        zip(plan.steps, plan.types, plan.types[1:], strict=False)
    ):
        read = [("read", before.tile_bytes)] if index else []
        produced = ("made", after.tile_bytes)
        lines.append((f"{index + 1} {step.collective}", [("held", source), *read, produced]))
    kinds = ("held", "source, kept"), ("read", "read by the step"), ("made", "made by it")
    return join((key(*kinds), bars(lines)))


def _alternatives(plan: Plan) -> list[Markup]:
    """What `auto` would choose from, where it is known at once."""
    try:
        explanation = explain(
            plan.src, plan.dst, memory_limit=plan.memory_limit, profile=plan.profile
        )
    except RedistribError:  # a plan by hand, on two meshes or above a limit
        return []
    return [heading("Alternatives"), _explained(explanation)]


def _explained(explanation: Explanation) -> Markup:
    heads = ("", "way", "time", "received", "peak tile", "steps")
    body = []
    for number, (name, way) in enumerate(explanation.alternatives):
        mark = "chosen" if number == explanation.chosen else ""
        if isinstance(way, str):
            body.append((mark, name, "", "", "", way))
        else:
            steps = ", ".join(step.collective for step in way.steps) or "nothing to do"
            received, peak = format_bytes(way.received_bytes), format_bytes(way.peak_tile_bytes)
            body.append((mark, name, format_seconds(way.seconds), received, peak, steps))
    return table(heads, body, ("time", "received", "peak tile"))


def _command(plan: Plan) -> str:
    """The command that makes the plan, for a shell."""
    options = [f"--mesh {quote(str(plan.src.mesh))}"]
    if plan.dst.mesh != plan.src.mesh:
        options.append(f"--dst-mesh {quote(str(plan.dst.mesh))}")
    if plan.strategy != "auto":
        options.append(f"--strategy {plan.strategy}")
    if plan.memory_limit is not None:
        options.append(f"--memory-limit {plan.memory_limit}")
    return f"redistrib plan {' '.join(options)} {_quoted(plan.src)} {_quoted(plan.dst)}"


def _quoted(t: ArrayType) -> str:
    return quote(str(t))
