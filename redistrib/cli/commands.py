"""The commands. Results go to stdout, everything else to stderr. Each returns its exit status."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np

import redistrib as rd
from redistrib.cli import running, values
from redistrib.cli.calibrate import calibrate
from redistrib.cli.facts import find_facts
from redistrib.cli.layouts import convert, explain
from redistrib.cli.lint import lint as find_problems
from redistrib.cli.model import check_model_file, model
from redistrib.cli.options import ENDS, FILE, examples, plan_of, problem
from redistrib.cli.program import Program
from redistrib.cli.progress import is_first_rank, progress
from redistrib.cli.questions import answers
from redistrib.cli.serve import serve
from redistrib.display import to_page
from redistrib.interop.programs.jax import plan_to_jax
from redistrib.interop.programs.sdy import plan_to_sdy
from redistrib.interop.programs.stablehlo import plan_to_stablehlo
from redistrib.models.model_data import FORMAT as MODEL_FORMAT
from redistrib.report.figures import format_seconds
from redistrib.report.plan_text import Detail, plan_text, print_rich
from redistrib.report.trace import to_trace

PROGRAMS = {"sdy": plan_to_sdy, "stablehlo": plan_to_stablehlo, "jax": plan_to_jax}
PLAN_FORMATS = ("text", "json", "html", "trace", *PROGRAMS)
LARGE = 1 << 30
"""Bytes of memory from which a run says first what it needs."""


@click.group(
    cls=Program,
    name="redistrib",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        f"plan --mesh x=2,y=4 {ENDS}",
        f"plan --mesh x=2,y=4 {ENDS} --format html -o plan.html",
        "plan --mesh x=8 --shape 4096,4096 --dtype f32 \"P('x', None)\" \"P(None, 'x')\"",
        "serve",
    )
    + "\n\n\b\nCompletion, for bash (zsh and fish likewise):\n"
    '  eval "$(_REDISTRIB_COMPLETE=bash_source redistrib)"',
)
@click.version_option(rd.__version__, prog_name="redistrib", message="%(prog)s %(version)s")
@click.pass_context
def program(context: click.Context) -> None:
    """Plan, check and run redistributions of sharded arrays.

    A type is written DTYPE[SIZE{FACTORS}, ...], for example 'f32[4096{x}, 1024{y}]': dimension 0
    over the mesh axis x, dimension 1 over y. Layouts as jax, HLO, Shardy, DTensor, Alpa, ColossalAI
    and ScaLAPACK write them are taken too; where none states them, with --shape and --dtype.
    Exit status: 0 done, 1 the answer is no, 2 bad input.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@program.command(
    epilog=examples(
        f"plan --mesh x=2,y=4 {ENDS}",
        "plan --mesh x=8 'bf16[64{x}, 64] sum{x}' 'bf16[64, 64{x}]' --profile dgx-h100",
        "plan --mesh x=8 --shape 64,64 --dtype f32 \"P('x', None)\" \"P(None, 'x')\"",
    )
)
@problem
@click.option("--format", "form", type=click.Choice(PLAN_FORMATS), default="text")
@click.option("--detail", type=click.Choice(get_args(Detail)), default="normal")
@click.option("-o", "--output", type=FILE, help="Write to this file instead of stdout.")
def plan(form: str, detail: Detail, output: Path | None, **stated: Any) -> int:
    """Plan the redistribution from type SRC to type DST.

    The format html is a page, trace a timeline for Perfetto. The formats sdy, stablehlo and jax are
    programs of collectives; their strategy is collectives, unless another is given.
    """
    if form in PROGRAMS:
        stated["strategy"] = stated["strategy"] or "collectives"
    planned = plan_of(**stated)
    if form == "text" and detail == "normal" and output is None and sys.stdout.isatty():
        print_rich(planned)
        return 0
    match form:
        case "json":
            text = planned.to_json()
        case "html":
            text = to_page(planned)
        case "trace":
            text = to_trace(planned)
        case "sdy" | "stablehlo" | "jax":
            text = PROGRAMS[form](planned)
        case _:
            text = plan_text(planned, detail)
    if output is None:
        click.echo(text)
    else:
        output.write_text(f"{text}\n", encoding="utf-8")
    return 0


@program.command(
    epilog=examples(
        f"run --mesh x=2,y=4 {ENDS}", "run --mesh x=2 'f32[8{x}]' 'f32[8]' --backend jax"
    )
)
@problem
@click.option("--backend", type=click.Choice(running.NAMES), default="simulator", show_default=True)
@click.option("--input", "source", type=FILE, help="The array, .npy; without it, seeded integers.")
@click.option("--output", type=FILE, help="Write the redistributed array here, .npy.")
@click.option("--repeat", type=click.IntRange(min=1), default=1, help="Run so many times.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text")
def run(
    backend: str, source: Path | None, output: Path | None, repeat: int, form: str, **stated: Any
) -> int:
    """Plan, run and verify the redistribution from type SRC to type DST.

    The array is split as SRC, redistributed, put together from DST and compared with the array.
    With --backend mpi, start one process per device: mpiexec -n 8 redistrib run ...
    """
    planned = plan_of(**stated)
    estimate = running.check_memory(planned, backend)
    if running.needed_bytes(planned, backend) >= LARGE and is_first_rank():
        click.echo(f"redistrib run: {estimate}", err=True)
    summed = bool(planned.src.partial or planned.dst.partial)
    if source is None:
        array = values.example_array(planned.src, summed=summed)
    else:
        array = values.load_array(source, planned.src)
    with progress(f"{backend}: running {planned.src} -> {planned.dst}"):
        outcome = running.run(planned, backend, array, repeat)
    result = outcome.array
    if result is None:  # a rank other than 0
        return 0
    verified = values.equal(result, array, summed=summed)
    if output is not None:
        with output.open("wb") as file:  # np.save would append .npy to a bare name
            np.save(file, result)
    if form == "json":
        answer = {
            "src": str(planned.src),
            "dst": str(planned.dst),
            "backend": backend,
            "verified": verified,
            "received_bytes": planned.received_bytes,
            "peak_tile_bytes": planned.peak_tile_bytes,
            "num_collectives": planned.num_collectives,
            "seconds": outcome.seconds,
            **outcome.figures,
        }
        click.echo(json.dumps(answer))
    else:
        click.echo(plan_text(planned, "concise"))
        times = ", ".join(format_seconds(s) for s in outcome.seconds)
        verdict = "every element is right" if verified else "WRONG: the result differs"
        if outcome.figures:  # those of ranks
            click.echo(f"{backend}: {verdict}; {times} a call on the slowest rank")
            click.echo(running.figures_text(outcome.figures))
        else:
            click.echo(f"{backend}: {verdict}; {times} with splitting and putting together")
    return 0 if verified else 1


@program.command()
@click.argument("path", type=FILE, metavar="PLAN.json")
@click.option("--z3", "by_proof", is_flag=True, help="Also prove it for all sizes, by z3.")
def check(path: Path, by_proof: bool) -> int:
    """Check a plan, of an array or a model: exit 0 and a summary, or 1 and the reason.

    With --z3 the plan is also proved for all global sizes that have the same digits.
    """
    data = values.load_plan(path)
    if data["format"] == MODEL_FORMAT:
        with progress(f"checking {path}"):
            return check_model_file(data)
    proof = None
    with progress(f"checking {path}"):
        derived = rd.check(data)
        if by_proof:
            from redistrib.checker.certificate import certify

            proof = certify(data)
    click.echo(f"{data['src']} -> {data['dst']}: correct")
    figures = {"steps": len(data["steps"]), "strategy": data["strategy"], **derived}
    width = max(map(len, figures))
    for name, value in figures.items():
        click.echo(f"  {name:{width}}  {value}")
    if proof is not None:
        click.echo(str(proof))
    return 0


@program.command()
def cost() -> int:
    """Answer questions from stdin, one JSON object per line, with one line each on stdout.

    A question is {"mesh": {"x": 2}, "src": ..., "dst": ..., optional ask, dst_mesh, strategy,
    memory_limit, profile, id}. Answers come in order: {"id", "seconds", "received_bytes",
    "peak_tile_bytes", "num_collectives", "live_bytes", "latencies"}, or {"id", "error", "kind"}.
    With "ask" it is a plan, explain, complete, or of lists srcs and dsts a vector or a matrix.
    """
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # bytes that are no text spoil their line only
    for answer in answers(sys.stdin):
        # Flushed line by line, so that a program can ask, read and ask again.
        click.echo(answer)
    return 0


@program.command()
@click.argument("path", type=FILE, metavar="FILE")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text")
def lint(path: Path, form: str) -> int:
    """Check and price the layouts that the arrays of a program pass through: exit 0 if all is well.

    FILE is a TOML or JSON list of arrays with their layouts (docs/oracle.md). Reports shape, axis
    and divisibility errors and every expensive move, with their lines; then the exit status is 1.
    """
    with progress(f"pricing the layouts of {path}"):
        findings = find_problems(path)
    if form == "json":
        click.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            where = f"{path}:{finding.line}"
            click.echo(f"{where}: {finding.kind}: {finding.array}: {finding.message}")
    return 1 if findings else 0


@program.command()
@click.option(
    "--backend",
    "backends",
    type=click.Choice(running.NAMES),
    multiple=True,
    help="Only this one; may be given more than once. Default: every one that is installed.",
)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text")
def demo(backends: tuple[str, ...], form: str) -> int:
    """Plan, run and verify real workloads on every backend, beside XLA's own resharding."""
    from redistrib.demo import run_demo

    return run_demo(list(backends) or None, form)


@program.command()
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text")
def info(form: str) -> int:
    """Show versions, installed backends and devices."""
    facts = dict(find_facts())
    if form == "json":
        click.echo(json.dumps(facts))
        return 0
    width = max(map(len, facts))
    for name, value in facts.items():
        shown = ", ".join(value) if isinstance(value, list) else value or "not installed"
        click.echo(f"{name:{width}}  {shown}")
    return 0


def _checkout() -> Path | None:
    """The root of the source checkout that this package is in, if it is in one."""
    root = Path(rd.__file__).parents[1]
    return root if (root / "setup.cfg").exists() else None


def _from_checkout(package: str, arguments: tuple[str, ...]) -> int:
    """Run a package that is in the source checkout and not in an installed wheel."""
    root = _checkout()
    if root is None:
        raise click.UsageError("needs a source checkout of redistrib; this is an installed package")
    if not (root / package / "__main__.py").exists():
        raise click.UsageError(f"not built yet: the checkout has no {package}/__main__.py")
    # Found by path, not by directory: paths among the arguments are relative to the user's.
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-P", "-m", package, *arguments]
    with subprocess.Popen(command, env=environment) as child:
        # Who ends this process means the child, which ends its own.
        before = signal.signal(signal.SIGTERM, lambda *_: child.terminate())
        try:
            return child.wait()
        finally:
            signal.signal(signal.SIGTERM, before)


PASS_ON = {"ignore_unknown_options": True, "help_option_names": []}


@program.command(context_settings=PASS_ON, hidden=_checkout() is None)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def prove(arguments: tuple[str, ...]) -> int:
    """Prove the rules of the planner. Needs a source checkout."""
    return _from_checkout("proofs", arguments)


@program.command(context_settings=PASS_ON, hidden=_checkout() is None)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(arguments: tuple[str, ...]) -> int:
    """Run the benchmarks. Needs a source checkout."""
    return _from_checkout("bench", arguments)


for command in (calibrate, convert, explain, model, serve):
    program.add_command(command)
