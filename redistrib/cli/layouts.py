"""`redistrib explain`, why this plan, and `redistrib convert`, a layout in other notations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

import redistrib as rd
from redistrib.cli import values
from redistrib.cli.options import ENDS, FILE, array, examples, problem
from redistrib.cli.progress import progress
from redistrib.demo import xla_in_words
from redistrib.display import to_page
from redistrib.interop import notations

NOTATION = click.Choice(notations.NAMES)


@click.command(
    epilog=examples(
        f"explain --mesh x=2,y=4 {ENDS}",
        f"explain --mesh x=2,y=4 {ENDS} --xla --format html -o why.html",
    )
)
@problem
@click.option("--xla", is_flag=True, help="And what XLA does by itself; needs jax.")
@click.option("--format", "form", type=click.Choice(["text", "html"]), default="text")
@click.option("-o", "--output", type=FILE, help="Write to this file instead of stdout.")
def explain(xla: bool, form: str, output: Path | None, **stated: Any) -> int:
    """Show what there was to choose from between SRC and DST, and why this plan.

    A line for each way that was tried, with its time, bytes and steps, or why there is none; a star
    marks the one that was chosen.
    """
    ends, options = values.stated_problem(**stated)
    if options.pop("strategy") != "auto":
        raise click.UsageError("explain tells what auto chooses from; it takes no --strategy")
    with progress(f"planning {ends[0]} -> {ends[1]}"):
        explanation = rd.explain(*ends, **options)
    if xla:
        with progress("compiling XLA's own program"):
            beside = ("XLA", xla_in_words(explanation.plan))
        explanation = replace(explanation, alternatives=(*explanation.alternatives, beside))
    text = to_page(explanation) if form == "html" else str(explanation)
    if output is None:
        click.echo(text)
    else:
        output.write_text(f"{text}\n", encoding="utf-8")
    return 0


@click.command(
    help="Write a LAYOUT in another notation, or in all that have a word for it.\n\n"
    f"The notations are {', '.join(notations.NAMES)} (docs/interop.md).",
    epilog=examples(
        "convert --mesh x=2,y=4 --to dtensor 'f32[8{y}, 8{x}]'",
        "convert --mesh x=2,y=4 --shape 8,8 --dtype f32 \"P('y', 'x')\"",
    ),
)
@click.argument("layout")
@click.option("--mesh", required=True, metavar="MESH", help="Axes and sizes, e.g. x=2,y=4.")
@array
@click.option("--from", "source", type=NOTATION, metavar="NOTATION", help="Default: told apart.")
@click.option("--to", "target", type=NOTATION, metavar="NOTATION", help="Default: all that can.")
def convert(
    layout: str,
    mesh: str,
    shape: str | None,
    dtype: str | None,
    source: str | None,
    target: str | None,
) -> int:
    """Print a line for each notation, or the text of the one that is asked for."""
    sizes = values.parse_shape(shape)
    on = rd.Mesh.parse(mesh)
    if source is None:
        t = notations.read_any(layout, on, sizes, dtype)
    else:
        t = notations.read_as(source, layout, on, sizes, dtype)
    if target is not None:
        click.echo(notations.write_as(target, t))
        return 0
    width = max(map(len, notations.NAMES))
    for name in notations.NAMES:
        try:
            text = notations.write_as(name, t)
        except rd.LayoutError:
            text = "no word for it"
        click.echo(f"{name:{width}}  {text}")
    return 0
