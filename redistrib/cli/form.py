"""The page of `redistrib serve`: a form that states a problem, and the plan below it.

`answer` takes the query of a request and gives a status and a page; it keeps nothing, reads no file
and starts nothing. What is wrong with a field stands beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import redistrib as rd
from redistrib import display
from redistrib.cli import values
from redistrib.report.html import Markup, element, fragment, join
from redistrib.report.plan_page import plan_parts
from redistrib.synth.plan.profile import profile_names
from redistrib.synth.planner.choose import STRATEGIES
from redistrib.synth.planner.problem import check_name
from redistrib.text import parse_limit
from redistrib.types.dtypes import dtype_name

MAX_QUERY = 8192
"""Bytes of a query."""
MAX_VALUE = 2048
"""Characters of a field."""
MAX_DEVICES = 4096
"""Devices of a mesh: what plans and draws within a second or two."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the form: its name in the query, what it is called, a hint, its choices."""

    name: str
    label: str
    hint: str = ""
    choices: tuple[str, ...] = ()


FIELDS = (
    Field("mesh", "mesh", "axes and sizes, x=2,y=4"),
    Field("src", "source", "f32[4096{x}, 4096{y}], P('x', 'y'), [Shard(0), Shard(1)], ..."),
    Field("dst", "target", "in any notation"),
    Field("dst_mesh", "mesh of the target", "if another"),
    Field("shape", "shape", "4096,4096, if no layout states it"),
    Field("dtype", "dtype", "f32, if no layout states it"),
    Field("memory_limit", "memory limit", "no tile above this: 8MiB"),
    Field("strategy", "strategy", "", STRATEGIES),
    Field("profile", "profile", "", profile_names()),
)
EXAMPLE = {
    "mesh": "x=2,y=4",
    "src": "f32[4096{x}, 4096{y}]",
    "dst": "f32[4096{y}, 4096{x}]",
    "strategy": "collectives",
}
Answer = tuple[int, str]


def answer(query: str) -> Answer:
    """The status and the page for a query; that of an example for an empty one."""
    if len(query) > MAX_QUERY:
        return 414, _page({}, {"": f"a query has at most {MAX_QUERY} bytes; got {len(query)}"})
    try:
        pairs = parse_qsl(
            query, keep_blank_values=True, errors="strict", max_num_fields=len(FIELDS)
        )
    except ValueError:  # too many fields, or no text
        return 400, _page({}, {"": "a query is the fields of this form, each once"})
    fields = dict(pairs) if pairs else dict(EXAMPLE)
    known = {field.name for field in FIELDS}
    if fields.keys() - known or len(fields) < len(pairs):
        return 400, _page({}, {"": "a query is the fields of this form, each once"})
    fields = {name: value.strip() for name, value in fields.items()}
    long = {name for name, value in fields.items() if len(value) > MAX_VALUE}
    if long:
        reason = f"a field has at most {MAX_VALUE} characters"
        return 413, _page(
            {n: v for n, v in fields.items() if n not in long}, dict.fromkeys(long, reason)
        )
    stated = {name: value for name, value in fields.items() if value}
    errors: dict[str, str] = {}
    plan = _plan(stated, errors)
    return (400 if errors else 200), _page(fields, errors, plan)


def _plan(stated: Mapping[str, str], errors: dict[str, str]) -> rd.Plan | None:
    """The plan of a problem, or None with an error beside each field that is at fault."""
    checks: dict[str, Any] = {
        "mesh": _small_mesh,
        "dst_mesh": _small_mesh,
        "shape": values.parse_shape,
        "dtype": dtype_name,
        "memory_limit": parse_limit,
        "strategy": partial(check_name, "strategy", known=STRATEGIES),
        "profile": partial(check_name, "profile", known=FIELDS[-1].choices),
    }
    for name in ("mesh", "src", "dst"):
        if name not in stated:
            errors[name] = "needed"
    for name, check in checks.items():
        if name in stated:
            try:
                check(stated[name])
            except rd.RedistribError as error:
                errors[name] = values.one_line(error)
    if errors.keys() & {"mesh", "src", "dst", "dst_mesh", "shape", "dtype"}:
        return None
    chosen = {name: value for name, value in stated.items() if name not in errors}
    try:
        ends, options = values.stated_problem(**chosen)
    except rd.RedistribError as error:
        errors[_end_at_fault(stated)] = values.one_line(error)
        return None
    if errors:
        return None
    try:
        return rd.plan(*ends, **options)
    except rd.RedistribError as error:
        limited = isinstance(error, rd.InfeasibleError) and "memory_limit" in stated
        errors["memory_limit" if limited else "dst"] = values.one_line(error)
        return None


def _small_mesh(text: str) -> None:
    mesh = rd.Mesh.parse(text)
    if mesh.num_devices > MAX_DEVICES:
        raise rd.LayoutError(
            f"a mesh has at most {MAX_DEVICES} devices here; got {mesh.num_devices}", mesh=mesh
        )


def _end_at_fault(stated: Mapping[str, str]) -> str:
    """Which of the two layouts cannot be read: the target, if the source can be read alone."""
    alone = {name: stated[name] for name in ("mesh", "src", "shape", "dtype") if name in stated}
    try:
        values.stated_problem(dst=stated["src"], **alone)
    except rd.RedistribError:
        return "src"
    return "dst"


def _page(fields: Mapping[str, str], errors: Mapping[str, str], plan: rd.Plan | None = None) -> str:
    title = "redistrib" if plan is None else f"{plan.src} -> {plan.dst}"
    parts = () if plan is None else tuple(plan_parts(plan))
    return display.page(title, fragment(_form(fields, errors), *parts))


def _form(fields: Mapping[str, str], errors: Mapping[str, str]) -> Markup:
    parts = [_error("form", errors[""])] if "" in errors else []
    parts += [_field(field, fields.get(field.name, ""), errors.get(field.name)) for field in FIELDS]
    button = element("button", "Plan", type="submit")
    return element("form", *parts, button, method="get", action="/", class_="fields")


def _field(field: Field, value: str, error: str | None) -> Markup:
    about = {
        "id": field.name,
        "name": field.name,
        "aria_invalid": "true" if error else None,
        "aria_describedby": f"{field.name}-error" if error else None,
    }
    if field.choices:
        options = (
            element("option", choice, selected="selected" if choice == value else None)
            for choice in field.choices
        )
        entry = element("select", *options, **about)
    else:
        tag = element("input", **about, value=value, placeholder=field.hint, maxlength=MAX_VALUE)
        entry = Markup(tag.removesuffix("</input>"))
    label = element("label", field.label, for_=field.name)
    return join((label, entry, _error(field.name, error) if error else Markup()))


def _error(name: str, message: str) -> Markup:
    return element("div", message, id=f"{name}-error", class_="error", role="alert")
