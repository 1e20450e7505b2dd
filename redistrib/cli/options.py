"""What several commands share: the options of a problem, a file, examples in the help."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

import redistrib as rd
from redistrib.cli import values
from redistrib.cli.progress import progress
from redistrib.synth.planner.choose import STRATEGIES

Command = TypeVar("Command", bound=Callable[..., int])
FILE = click.Path(path_type=Path, dir_okay=False)
ENDS = "'f32[4096{x}, 4096{y}]' 'f32[4096{y}, 4096{x}]'"


def examples(*lines: str) -> str:
    """The end of a help text: commands as they are typed."""
    return "\n".join(["\b", "Examples:", *(f"  redistrib {line}" for line in lines)])


def array(command: Command) -> Command:
    """The options for what a layout in another notation does not state."""
    for decorate in (
        click.option("--dtype", help="Element type, where the layouts do not state it."),
        click.option("--shape", metavar="N,N,...", help="Global shape, likewise."),
    ):
        command = decorate(command)
    return command


def problem(command: Command) -> Command:
    """The arguments and options that state a problem; they arrive as the keywords of `plan_of`."""
    for decorate in (
        click.option("--profile", help="Hardware profile: a name, or a TOML file."),
        click.option("--memory-limit", metavar="SIZE", help="No tile above this, e.g. 1GiB."),
        click.option("--strategy", help=f"{', '.join(STRATEGIES)}; default: auto."),
        array,
        click.option("--dst-mesh", metavar="MESH", help="Mesh of the target, if another."),
        click.option("--mesh", required=True, metavar="MESH", help="Axes and sizes, e.g. x=2,y=4."),
        click.argument("dst"),
        click.argument("src"),
    ):
        command = decorate(command)
    return command


def plan_of(**stated: Any) -> rd.Plan:
    """The plan of a stated problem; says on stderr that it still plans where that takes long."""
    ends, options = values.stated_problem(**stated)
    with progress(f"planning {ends[0]} -> {ends[1]}"):
        return rd.plan(*ends, **options)
