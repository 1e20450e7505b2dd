"""The commands. Results go to stdout, everything else to stderr.

A command returns its exit status: 0 done, 1 the answer is no. Bad usage or input is an exception,
which `Program` turns into one line on stderr and status 2.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any, TypeVar, get_args

import click
import numpy as np

import redistrib as rd
from redistrib import report
from redistrib.cli import values
from redistrib.cli.facts import find_facts
from redistrib.cli.lint import lint as find_problems
from redistrib.cli.model import check_model_file, model
from redistrib.cli.progress import progress
from redistrib.interop.programs.jax import plan_to_jax
from redistrib.interop.programs.sdy import plan_to_sdy
from redistrib.interop.programs.stablehlo import plan_to_stablehlo
from redistrib.models.model_data import FORMAT as MODEL_FORMAT
from redistrib.synth.planner.choose import STRATEGIES
from redistrib.text import parse_size

Command = TypeVar("Command", bound=Callable[..., int])

BACKENDS = ("simulator", "jax", "mpi")
PROGRAMS = {"sdy": plan_to_sdy, "stablehlo": plan_to_stablehlo, "jax": plan_to_jax}
PLAN_FORMATS = ("text", "json", "html", *PROGRAMS)
QUESTION = ("id", "mesh", "src", "dst", "strategy", "memory_limit", "profile")
FILE = click.Path(path_type=Path, dir_okay=False)


class Program(click.Group):
    """The group of commands: exit codes and one-line errors as the interface promises."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run and exit. Raises SystemExit."""
        kwargs["standalone_mode"] = False
        name = kwargs.get("prog_name") or self.name
        try:
            sys.exit(super().main(*args, **kwargs) or 0)
        except (rd.InfeasibleError, rd.CheckError) as error:
            _fail(name, _one_line(error), 1)
        except click.Abort:
            _fail(name, "interrupted", 130)
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else name
            _fail(path, error.format_message(), 2)
        except click.ClickException as error:
            _fail(name, error.format_message(), 2)
        except (rd.RedistribError, OSError, MemoryError) as error:
            _fail(name, _one_line(error), 2)


def _fail(name: str | None, message: str, status: int) -> None:
    click.echo(f"{name}: {' '.join(message.split())}", err=True)
    sys.exit(status)


def _one_line(error: Exception) -> str:
    match error:
        case rd.TypeSyntaxError(text=text):
            # The lines after the first point at the column with a caret.
            first = str(error).split("\n", maxsplit=1)[0]
            return first if repr(text) in first else f"{first} in {text!r}"
        case OSError(strerror=str(reason), filename=name) if name is not None:
            return f"{name}: {reason}"
        case MemoryError():
            return f"not enough memory: {error}"
        case _:
            return str(error)


@click.group(
    cls=Program,
    name="redistrib",
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(rd.__version__, prog_name="redistrib", message="%(prog)s %(version)s")
def program() -> None:
    """Plan, check and run redistributions of sharded arrays.

    A type is written DTYPE[SIZE{FACTORS}, ...], for example 'f32[4096{x}, 1024{y}]': dimension 0
    over the mesh axis x, dimension 1 over y. Exit status: 0 done, 1 the answer is no, 2 bad input.
    """


def problem(command: Command) -> Command:
    """The arguments and options that state a problem; they arrive as the keywords of `_plan`."""
    for decorate in (
        click.option("--profile", help="Hardware profile: a name, or a TOML file."),
        click.option("--memory-limit", metavar="SIZE", help="No tile above this, e.g. 1GiB."),
        click.option("--strategy", help=f"{', '.join(STRATEGIES)}; default: auto."),
        click.option("--dst-mesh", metavar="MESH", help="Mesh of the target, if another."),
        click.option("--mesh", required=True, metavar="MESH", help="Axes and sizes, e.g. x=2,y=4."),
        click.argument("dst"),
        click.argument("src"),
    ):
        command = decorate(command)
    return command


def _problem(
    src: str,
    dst: str,
    mesh: Any,
    dst_mesh: str | None = None,
    strategy: str | None = None,
    memory_limit: str | int | None = None,
    profile: str | None = None,
) -> tuple[tuple[rd.ArrayType, rd.ArrayType], dict[str, Any]]:
    """The arguments of rd.plan and rd.cost, by position and by name."""
    limit = None if memory_limit is None else parse_size(memory_limit)
    options = {
        "strategy": "auto" if strategy is None else strategy,
        "memory_limit": limit,
        "profile": profile,
    }
    return values.problem_types(mesh, src, dst, dst_mesh), options


def _plan(**stated: Any) -> rd.Plan:
    ends, options = _problem(**stated)
    return rd.plan(*ends, **options)


@program.command()
@problem
@click.option("--format", "form", type=click.Choice(PLAN_FORMATS), default="text")
@click.option("--detail", type=click.Choice(get_args(report.Detail)), default="normal")
@click.option("-o", "--output", type=FILE, help="Write to this file instead of stdout.")
def plan(form: str, detail: report.Detail, output: Path | None, **stated: Any) -> int:
    """Plan the redistribution from type SRC to type DST.

    The formats sdy, stablehlo and jax are programs of collectives; their strategy is collectives,
    unless another is given.
    """
    if form in PROGRAMS:
        stated["strategy"] = stated["strategy"] or "collectives"
    found = _plan(**stated)
    if form == "text" and detail == "normal" and output is None and sys.stdout.isatty():
        report.print_rich(found)
        return 0
    match form:
        case "json":
            text = found.to_json()
        case "html":
            text = report.to_page(found)
        case "sdy" | "stablehlo" | "jax":
            text = PROGRAMS[form](found)
        case _:
            text = report.to_text(found, detail)
    if output is None:
        click.echo(text)
    else:
        output.write_text(f"{text}\n", encoding="utf-8")
    return 0


@program.command()
@problem
@click.option("--backend", type=click.Choice(BACKENDS), default="simulator", show_default=True)
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
    found = _plan(**stated)
    summed = bool(found.src.partial or found.dst.partial)
    if source is None:
        array = values.example_array(found.src, summed=summed)
    else:
        array = values.load_array(source, found.src)
    figures: dict[str, Any] = {}
    seconds: list[float] = []
    with progress(f"{backend}: running {found.src} -> {found.dst}"):
        if backend == "mpi":
            result, seconds, figures = _measure_mpi(found, array, repeat)
        else:
            execute = _executor(backend, found)
            for _ in range(repeat):
                start = time.perf_counter()
                result = execute(array)
                seconds.append(time.perf_counter() - start)
    if result is None:  # a rank other than 0
        return 0
    verified = values.equal(result, array, summed=summed)
    if output is not None:
        with output.open("wb") as file:  # np.save would append .npy to a bare name
            np.save(file, result)
    if form == "json":
        answer = {
            "src": str(found.src),
            "dst": str(found.dst),
            "backend": backend,
            "verified": verified,
            "received_bytes": found.received_bytes,
            "peak_tile_bytes": found.peak_tile_bytes,
            "num_collectives": found.num_collectives,
            "seconds": seconds,
            **figures,
        }
        click.echo(json.dumps(answer))
    else:
        click.echo(report.to_text(found, "concise"))
        times = ", ".join(report.format_seconds(s) for s in seconds)
        outcome = "every element is right" if verified else "WRONG: the result differs"
        if backend == "mpi":
            click.echo(f"mpi: {outcome}; {times} a call on the slowest rank")
            click.echo(_mpi_figures(figures))
        else:
            click.echo(f"{backend}: {outcome}; {times} with splitting and putting together")
    return 0 if verified else 1


def _measure_mpi(
    found: rd.Plan, array: values.Array, repeat: int
) -> tuple[values.Array | None, list[float], dict[str, Any]]:
    """The array on rank 0, seconds of each call, and the figures of the worst rank."""
    mpi = _backend("mpi")
    measured = mpi.measure_array(found, array, repeat=repeat)
    figures = {
        "rank_received_bytes": measured.received_bytes,
        "gigabytes_per_second": measured.received_bytes / median(measured.seconds) / 1e9,
        "rank_peak_bytes": measured.peak_bytes,
        "rank_extra_bytes": measured.extra_bytes,
    }
    return measured.array, list(measured.seconds), figures


def _mpi_figures(figures: dict[str, Any]) -> str:
    text = (
        f"mpi: a rank receives {report.format_bytes(figures['rank_received_bytes'])}, "
        f"{figures['gigabytes_per_second']:.3g} GB/s"
    )
    if figures["rank_peak_bytes"] is not None:
        text += (
            f"; its memory peaks at {report.format_bytes(figures['rank_peak_bytes'])}, "
            f"{report.format_bytes(figures['rank_extra_bytes'])} beside the array and its tiles"
        )
    return text


def _executor(backend: str, found: rd.Plan) -> Callable[[values.Array], values.Array | None]:
    """What runs the plan on a whole array; under mpi the ranks other than 0 get None."""
    if backend == "simulator":
        from redistrib.backends import simulator

        def simulate(array: values.Array) -> values.Array:
            tiles = simulator.run(found, simulator.scatter(array, found.src))
            return simulator.gather(tiles, found.dst)

        return simulate
    module = _backend(backend)
    return lambda array: module.run_array(found, array)


def _backend(backend: str) -> Any:
    """The module of a backend. Raises BackendError where it is not installed."""
    try:
        return importlib.import_module(f"redistrib.backends.{backend}")
    except ImportError as error:
        raise rd.BackendError(
            f"the backend {backend} needs the extra {backend}: pip install 'redistrib[{backend}]' "
            f"({error})",
            backend=backend,
        ) from error


@program.command()
@click.argument("path", type=FILE, metavar="PLAN.json")
@click.option("--z3", "by_proof", is_flag=True, help="Also prove it for all sizes, by z3.")
def check(path: Path, by_proof: bool) -> int:
    """Check a plan, of an array or a model: exit 0 and a summary, or 1 and the reason.

    With --z3 the plan is also proved for all global sizes that have the same digits.
    """
    data = values.load_plan(path)
    if data["format"] == MODEL_FORMAT:
        return check_model_file(data)
    found = rd.check(data)
    proof = None
    if by_proof:
        from redistrib.checker.certificate import certify

        proof = certify(data)
    click.echo(f"{data['src']} -> {data['dst']}: correct")
    figures = {"steps": len(data["steps"]), "strategy": data["strategy"], **found}
    width = max(map(len, figures))
    for name, value in figures.items():
        click.echo(f"  {name:{width}}  {value}")
    if proof is not None:
        click.echo(str(proof))
    return 0


@program.command()
def cost() -> int:
    """Answer questions from stdin, one JSON object per line, with one line each on stdout.

    A question is {"mesh": {"x": 2}, "src": ..., "dst": ..., optional strategy, memory_limit,
    profile, id}. Answers come in order: {"id", "seconds", "received_bytes", "peak_tile_bytes",
    "num_collectives"}, or {"id", "error"}.
    """
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # bytes that are no text spoil their line only
    oracles = lru_cache(maxsize=16)(rd.Oracle)  # they remember what was asked before
    for line in sys.stdin:
        if line.strip():
            # Flushed line by line, so that a program can ask, read and ask again.
            click.echo(json.dumps(_answer(line, oracles)))
    return 0


def _no_constant(name: str) -> None:
    raise rd.RedistribError(f"JSON has no {name}")


def _question(line: str) -> dict[str, Any]:
    try:
        question = json.loads(line, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise rd.RedistribError(
            f"a question is one line of JSON; column {error.colno}: {error.msg}"
        ) from None
    except ValueError:  # Python reads no integer of more than 4,300 digits
        raise rd.RedistribError("a number of a question has too many digits to be read") from None
    if not isinstance(question, dict):
        raise rd.RedistribError(f"a question is a JSON object; got {line.strip()[:80]!r}")
    return question


def _answer(line: str, oracles: Callable[..., rd.Oracle]) -> dict[str, Any]:
    identity = None
    try:
        question = _question(line)
        identity = question.get("id")
        missing = [name for name in ("mesh", "src", "dst") if name not in question]
        unknown = [name for name in question if name not in QUESTION]
        if missing or unknown:
            raise rd.RedistribError(
                "a question has mesh, src, dst and optionally strategy, memory_limit, profile, "
                f"id; missing: {missing}, unknown: {unknown}"
            )
        if not isinstance(question["mesh"], dict | str):
            raise rd.RedistribError(f"mesh is {{AXIS: SIZE, ...}}; got {question['mesh']!r}")
        for name in ("src", "dst", "strategy", "profile"):
            if not isinstance(question.get(name, ""), str):
                raise rd.RedistribError(f"{name} is a text; got {question[name]!r}")
        (src, dst), options = _problem(**{k: question[k] for k in question if k != "id"})
        oracle = oracles(src.mesh, options["profile"], options["memory_limit"])
        return {"id": identity, **asdict(oracle.cost(src, dst, strategy=options["strategy"]))}
    except (rd.RedistribError, RecursionError) as error:
        return {"id": identity, "error": " ".join(_one_line(error).split())}


@program.command()
@click.argument("path", type=FILE, metavar="FILE")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text")
def lint(path: Path, form: str) -> int:
    """Check and price the layouts that the arrays of a program pass through: exit 0 if all is well.

    FILE is a TOML or JSON list of arrays with their layouts (docs/oracle.md). Reports shape, axis
    and divisibility errors and every expensive move, with their lines; then the exit status is 1.
    """
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
    type=click.Choice(BACKENDS),
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


@program.command()
@click.option("--backend", type=click.Choice(["mpi"]), required=True)
@click.option("--mesh", metavar="MESH", help="Measure each axis, e.g. x=2,y=4; default: one axis.")
@click.option("--name", default="calibrated", show_default=True, help="The name of the profile.")
@click.option("-o", "--output", type=FILE, help="Write to this file instead of stdout.")
def calibrate(backend: str, mesh: str | None, name: str, output: Path | None) -> int:
    """Measure a hardware profile of this machine: a TOML file for --profile.

    With --backend mpi, start one process per device: mpiexec -n 8 redistrib calibrate ...
    """
    _backend(backend)
    from mpi4py import MPI

    from redistrib.backends.mpi import calibration

    comm = MPI.COMM_WORLD
    measured = rd.Mesh(x=comm.size) if mesh is None else rd.Mesh.parse(mesh)
    with progress(f"calibrating {measured} over {comm.size} ranks"):
        profile = calibration.calibrate(measured, comm, name)
    if comm.rank:
        return 0
    library = MPI.Get_library_version().split("\n")[0].strip("\0 ")
    text = calibration.to_toml(
        profile,
        f"redistrib calibrate --backend {backend}, {date.today():%Y-%m-%d}\n"
        f"{library}, {comm.size} ranks as {measured}, {os.cpu_count()} cores",
    )
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")
    return 0


def _from_checkout(package: str, arguments: tuple[str, ...]) -> int:
    """Run a package that is in the source checkout and not in an installed wheel."""
    root = Path(rd.__file__).parents[1]
    if not (root / "setup.cfg").exists():
        raise click.UsageError("needs a source checkout of redistrib; this is an installed package")
    if not (root / package / "__main__.py").exists():
        raise click.UsageError(f"not built yet: the checkout has no {package}/__main__.py")
    # Found by path, not by directory: paths among the arguments are relative to the user's.
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-P", "-m", package, *arguments]
    return subprocess.run(command, env=environment, check=False).returncode


PASS_ON = {"ignore_unknown_options": True, "help_option_names": []}


@program.command(context_settings=PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def prove(arguments: tuple[str, ...]) -> int:
    """Prove the rules of the planner. Needs a source checkout."""
    return _from_checkout("proofs", arguments)


@program.command(context_settings=PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(arguments: tuple[str, ...]) -> int:
    """Run the benchmarks. Needs a source checkout."""
    return _from_checkout("bench", arguments)


program.add_command(model)
