"""The benchmarks:  redistrib bench [--quick] [--against OLD.json]  or  python -m bench

Measures ours beside XLA, Shardy, DTensor and the paper's strategy on a seeded survey and on named
workloads, planning time, and simulated times on thousands of devices. Writes results as JSON, a
Markdown page and figures. An interrupted run goes on where it stopped. Markdown on stdout, progress
on stderr. Exit status: 0 done, 1 regressions against OLD.json, 2 bad input or nothing in OLD.json
to compare with, 3 out of --minutes.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import math
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import redistrib as rd
from bench import campaign, page, planning_page, scale, sections, summary
from bench.campaign import FULL, QUICK, Effort, Units
from bench.coverage import PAIRS, PARTS, PLANNING, SCALE, missing, missing_parts
from bench.harness import Team, runners
from bench.journal import Journal, OutOfTimeError, progress
from bench.peers import ROOT, find_python
from bench.sections import SECTIONS, Section
from bench.timing import machine
from redistrib.demo.launch import finish

Figures = dict[str, Any]


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
    if options.gpu_target and not options.gpu_target.is_file():
        parser.error(f"{options.gpu_target}: no such file")
    old = read(options.against, parser) if options.against else None
    directory = options.output or ROOT / ("build/bench" if options.quick else "docs")
    journal = None
    if options.results:
        results = read(options.results, parser)
    else:
        try:
            results, journal = run(effort, options, directory)
        except OutOfTimeError:
            progress(f"{options.minutes:g} min are over; the same command goes on from here")
            return 3
    results["summary"] = summary.headline(results["workloads"])
    if old:
        results["against"] = summary.against(old, results)
    write(results, directory / "benchmarks.json")
    text = page.markdown(results, draw(results, directory))
    (directory / "benchmarks.md").write_text(text, encoding="utf-8")
    if results.get("planning"):
        beside = planning_page.markdown(results["planning"])
        (directory / "planning.md").write_text(beside, encoding="utf-8")
    if journal is not None:
        journal.close()
    sys.stdout.write(text)
    for part, why in missing(results):
        progress(f"missing: {part}: {why}")
    progress(f"written: {directory / 'benchmarks.md'}")
    return report_regressions(old, results) if old else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="redistrib bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="a sample: under 5 minutes on 2 cores")
    parser.add_argument("--against", type=Path, metavar="OLD", help="compare with the results OLD")
    parser.add_argument("--results", type=Path, metavar="NEW", help="measure nothing: take NEW")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: docs, build/bench")
    parser.add_argument("--fresh", action="store_true", help="do not go on with an earlier run")
    parser.add_argument("--pairs", type=int, metavar="N", help="pairs per survey, and named ones")
    parser.add_argument("--size", type=int, metavar="MIB", help="size of the arrays")
    parser.add_argument(
        "--only", choices=PARTS, action="append", help="measure this part only; can be repeated"
    )
    parser.add_argument(
        "--minutes", type=float, default=math.inf, metavar="M", help="begin nothing new after M"
    )
    parser.add_argument("--torch-python", metavar="PATH", help="a Python that has torch")
    parser.add_argument(
        "--gpu-target", type=Path, metavar="FILE", help="a GPU as bench/h100.txtpb, the default, is"
    )
    return parser


def run(
    effort: Effort, options: argparse.Namespace, directory: Path
) -> tuple[Figures, Journal | None]:
    """Measure what is asked for and not there yet; all that is there then.

    With the journal if it is complete. Raises OutOfTimeError if --minutes are over before.
    """
    torch = find_python(["torch"], options.torch_python)
    settings = asdict(effort)
    # What is measured how; how many pairs may grow from run to run.
    about = {
        "quick": options.quick,
        "commit": commit(),
        "versions": versions(torch),
        "settings": {key: settings[key] for key in ("size_mib", "limits")},
        "gpu": str(options.gpu_target),
    }
    file = directory / "benchmarks.partial.jsonl"
    if options.fresh:
        file.unlink(missing_ok=True)
    journal = Journal(file, about, time.monotonic() + 60 * options.minutes)
    started = journal.once("", "", lambda: {"date": str(date.today()), "machine": machine()})
    expected = earlier_seconds(directory, settings)
    with Team(runners(torch), effort.limits) as team:
        parts = units(effort, options, torch, team, directory)
        chosen = [name for name in parts if name in (options.only or parts)]
        for number, name in enumerate(chosen):
            after = sum(expected.get(later, 0.0) for later in chosen[number + 1 :])
            campaign.measured(name, parts[name], journal, after)
            team.stop()
    findings = {
        name: [journal[name, unit] for unit in part if (name, unit) in journal]
        for name, part in parts.items()
    }
    complete = all(len(findings[name]) == len(part) for name, part in parts.items())
    results = {
        "program": "bench",
        **started,
        "command": "redistrib bench" + command_options(options),
        "commit": about["commit"],
        "versions": about["versions"],
        "settings": settings,
        "seconds": journal.seconds,
        "planning": next(iter(findings[PLANNING]), None),
        "scale": [row for rows in findings[SCALE] for row in rows],
        "sections": [
            [s.title, finding["text"]]
            for s in SECTIONS
            for finding in findings.get(s.key, ())
            if "text" in finding
        ],
        "missing": missing_parts(findings, {name: len(part) for name, part in parts.items()}),
        "workloads": findings[PAIRS],
    }
    return results, journal if complete else None


def units(
    effort: Effort, options: argparse.Namespace, torch: str | None, team: Team, directory: Path
) -> dict[str, Units]:
    """Per part what is measured, by name."""
    families = scale.FAMILIES[::3] if options.quick else scale.FAMILIES
    return {
        PAIRS: {w.name: partial(campaign.measure, team, w) for w in campaign.workloads(effort)},
        PLANNING: {"": partial(planning, directory, options.quick, torch)},
        SCALE: {f.name: partial(scale.simulate, [f], checked=not options.quick) for f in families},
        **{
            section.key: {"": partial(sections.text_of, section, options_of)}
            for section in SECTIONS
            if (options_of := section_options(section, options)) is not None
        },
    }


def section_options(section: Section, options: argparse.Namespace) -> tuple[str, ...] | None:
    """The options of a section's program; None if it has no quick form."""
    if options.quick:
        return section.quick
    if section.key == "gpu" and options.gpu_target:
        return (*section.full, "--target-config", str(options.gpu_target.resolve()))
    return section.full


def earlier_seconds(directory: Path, settings: Figures) -> dict[str, float]:
    """What each part took in the last run that was finished here; nothing if it was another."""
    with suppress(OSError, ValueError):
        last = json.loads((directory / "benchmarks.json").read_text(encoding="utf-8"))
        if last.get("settings") == settings:
            return last.get("seconds", {})  # type: ignore[no-any-return]
    return {}


def planning(directory: Path, quick: bool, torch: str | None) -> Figures:
    """The figures of bench.planning, from a process of its own; without those of single pairs."""
    file = directory / "planning.partial.json"
    command = [sys.executable, "-m", "bench.planning", "--json", str(file)]
    command += ["--quick"] * quick + (["--torch-python", torch] if torch else [])
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, text=True)
    finish(process)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    figures: Figures = json.loads(file.read_text(encoding="utf-8"))
    file.unlink()
    del figures["pairs"]
    return figures


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
    others = {key: value for key, value in results.items() if key != "workloads"}
    text = json.dumps(others, indent=1).removesuffix("\n}")
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
    worse = summary.regressions(before, now)
    count = len(summary.common(before, now))
    for line in worse:
        progress(f"worse: {line}")
    if not count:
        progress(f"nothing to compare: no workload of {old['date']} is in this run")
        return 2
    progress(f"{len(worse)} regressions on {count} workloads, against {old['date']}")
    return 1 if worse else 0


def versions(torch: str | None) -> dict[str, str]:
    """Of everything that is measured."""
    result = {"python": platform.python_version(), "redistrib": rd.__version__}
    for name in ("jax", "jaxlib", "numpy", "mpi4py", "mpich"):
        try:
            result[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            result[name] = planning_page.NOT_INSTALLED
    result["torch"] = planning_page.NOT_INSTALLED
    if torch:
        code = "import torch; print(torch.__version__)"
        answer = subprocess.run([torch, "-c", code], capture_output=True, text=True, check=False)
        result["torch"] = answer.stdout.strip() or planning_page.NOT_INSTALLED
    return result


def commit() -> str:
    """The last commit that changed what is measured, marked if the code differs from it."""

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        return answer.stdout.strip()

    code = ("--", "bench", "redistrib")
    changed = git("status", "--porcelain", "--untracked-files=no", *code)
    last = git("log", "-1", "--abbrev=12", "--format=%h", *code)
    return (last or "unknown") + "-dirty" * bool(changed)


def command_options(options: argparse.Namespace) -> str:
    """The options that change what is measured, as they were given; no paths."""
    text: str = " --quick" * options.quick
    for name in ("pairs", "size"):
        value: int | None = getattr(options, name)
        if value is not None:
            text += f" --{name} {value}"
    return text


if __name__ == "__main__":
    sys.exit(main())
