"""The benchmarks:  redistrib bench [--quick] [--against OLD.json]  or  python -m bench

Measures ours beside XLA, Shardy, DTensor and the paper's strategy on a seeded survey and on named
workloads, planning time, and simulated times on thousands of devices. Writes results as JSON, a
Markdown page and figures. An interrupted run goes on where it stopped. Markdown on stdout, progress
on stderr. Exit status: 0 done, 1 regressions against OLD.json, 2 bad input.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import platform
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import redistrib as rd
from bench import campaign, page, scale, summary
from bench.campaign import FULL, QUICK, Effort, progress
from bench.harness import ROOT, runners
from bench.planning import find_torch
from bench.planning_page import NOT_INSTALLED
from bench.sections import sections
from bench.timing import machine

Figures = dict[str, Any]
PARTS = ("pairs", "planning", "scale", "sections")


def main(arguments: Sequence[str] | None = None) -> int:
    # An exception, so that the workers are ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = _parser()
    options = parser.parse_args(arguments)
    effort = QUICK if options.quick else FULL
    if options.pairs is not None:
        effort = replace(effort, survey_pairs=options.pairs, real=options.pairs)
    if options.size is not None:
        effort = replace(effort, size_mib=options.size)
    old = read(options.against, parser) if options.against else None
    directory = options.output or ROOT / ("build/bench" if options.quick else "docs")
    if options.results:
        results = read(options.results, parser)
    else:
        results = run(effort, options, directory)
        write(results, directory / "benchmarks.json")
    text = page.markdown(results, draw(results, directory))
    (directory / "benchmarks.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    progress(f"written: {directory / 'benchmarks.md'}")
    return report_regressions(old, results) if old else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="redistrib bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="a sample: under 5 minutes on 2 cores")
    parser.add_argument("--against", type=Path, metavar="OLD", help="report what is worse than OLD")
    parser.add_argument("--results", type=Path, metavar="NEW", help="measure nothing: take NEW")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: docs, build/bench")
    parser.add_argument("--fresh", action="store_true", help="do not go on with an earlier run")
    parser.add_argument("--pairs", type=int, metavar="N", help="pairs per survey, and named ones")
    parser.add_argument("--size", type=int, metavar="MIB", help="size of the arrays")
    parser.add_argument(
        "--only", choices=PARTS, action="append", help="this part only; can be repeated"
    )
    parser.add_argument("--torch-python", metavar="PATH", help="a Python that has torch")
    return parser


def run(effort: Effort, options: argparse.Namespace, directory: Path) -> Figures:
    """Measure all parts."""
    parts = options.only or PARTS
    torch = find_torch(options.torch_python)
    members = runners(torch)
    about = {
        "commit": commit(),
        "versions": versions(torch),
        "settings": campaign.settings(effort),
    }
    results: Figures = {
        "program": "bench",
        "date": str(date.today()),
        "command": "redistrib bench" + command_options(options),
        "machine": machine(),
        **about,
        "workloads": [],
    }
    partial = directory / "benchmarks.partial.jsonl"
    if options.fresh:
        partial.unlink(missing_ok=True)
    if "pairs" in parts:
        items = campaign.workloads(effort)
        results["workloads"] = campaign.measured(items, members, effort.limits, partial, about)
    results["summary"] = summary.headline(results["workloads"])
    if "planning" in parts:
        progress("planning time")
        results["planning"] = planning(directory, options.quick, torch)
    if "scale" in parts:
        progress("simulation at scale")
        families = scale.FAMILIES[::2] if options.quick else scale.FAMILIES
        results["scale"] = campaign.rounded(scale.simulate(families, checked=not options.quick))
    if "sections" in parts:
        results["sections"] = list(sections(options.quick))
    # Everything is in the results now: the next run measures anew.
    partial.unlink(missing_ok=True)
    return results


def planning(directory: Path, quick: bool, torch: str | None) -> Figures:
    """The figures of bench.planning, from a process of its own; without those of single pairs."""
    file = directory / "planning.partial.json"
    command = [sys.executable, "-m", "bench.planning", "--json", str(file)]
    command += ["--quick"] * quick + (["--torch-python", torch] if torch else [])
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    figures: Figures = json.loads(file.read_text(encoding="utf-8"))
    file.unlink()
    del figures["pairs"]
    return campaign.rounded(figures)  # type: ignore[no-any-return]


def draw(results: Figures, directory: Path) -> list[str]:
    """The names of the figures; none without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        progress("no figures: pip install 'redistrib[bench]'")
        return []
    from bench import figures

    return figures.draw(results, directory)


def write(results: Figures, path: Path) -> None:
    """The results as JSON, one workload per line."""
    rows = ",\n".join(json.dumps(row) for row in results["workloads"])
    rest = {key: value for key, value in results.items() if key != "workloads"}
    text = json.dumps(rest, indent=1).removesuffix("\n}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{text},\n "workloads": [\n{rows}\n]}}\n', encoding="utf-8")


def read(path: Path, parser: argparse.ArgumentParser) -> Figures:
    """The results in a file; a usage error if it holds none."""
    try:
        results: Figures = json.loads(path.read_text(encoding="utf-8"))
        if results["program"] != "bench":
            raise ValueError(f"of {results['program']}")
    except OSError as error:
        parser.error(f"{path}: {error.strerror}")
    except (ValueError, KeyError, TypeError) as error:
        parser.error(f"{path} does not hold results of redistrib bench: {error!r}")
    return results


def report_regressions(old: Figures, new: Figures) -> int:
    """Say on stderr what is worse; the exit status."""
    before, now = old["workloads"], new["workloads"]
    found = summary.regressions(before, now)
    count = summary.compared(before, now)
    for line in found:
        progress(f"worse: {line}")
    progress(f"{len(found)} regressions on {count} workloads, against {old['date']}")
    return 1 if found else 0


def versions(torch: str | None) -> dict[str, str]:
    """Of everything that is measured."""
    found = {"python": platform.python_version(), "redistrib": rd.__version__}
    for name in ("jax", "jaxlib", "numpy", "mpi4py", "mpich"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = NOT_INSTALLED
    found["torch"] = NOT_INSTALLED
    if torch:
        code = "import torch; print(torch.__version__)"
        answer = subprocess.run([torch, "-c", code], capture_output=True, text=True, check=False)
        found["torch"] = answer.stdout.strip() or NOT_INSTALLED
    return found


def commit() -> str:
    """The commit that is measured, marked if the tree differs from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "unknown"


def command_options(options: argparse.Namespace) -> str:
    """The options that change what is measured, as they were given; no paths."""
    text = " --quick" * options.quick
    for name in ("pairs", "size"):
        if (value := getattr(options, name)) is not None:
            text += f" --{name} {value}"
    return text + "".join(f" --only {part}" for part in options.only or ())


if __name__ == "__main__":
    sys.exit(main())
