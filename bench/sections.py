"""The other benchmarks of this directory, run as they are; what they print becomes a section."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.journal import NOT_RUN
from bench.peers import ROOT, find_python, packages
from redistrib.demo.launch import finish

TIMEOUT = 3600.0


@dataclass(frozen=True, slots=True)
class Section:
    """A program that prints Markdown; options of the quick and of the full form.

    None: it has no quick form. `says` is what its figures are. `needs` are modules without which it
    cannot run, here or in the environment of the peers; `install` is what brings them.
    """

    key: str
    title: str
    module: str
    quick: tuple[str, ...] | None
    full: tuple[str, ...] = ()
    says: str = ""
    needs: tuple[str, ...] = ()
    install: str = ""


_COMPILED = ("--programs", "ours,xla", "--every", "4")
_COMPILED_SAYS = (
    "One in four of the survey's pairs on 16 devices, arrays of 4 GiB, ours and XLA's own "
    "resharding (xla): figures of the compiler, nothing was run. `temp / larger tile`: "
    "temporaries over the larger of source's and target's tile. `received / bound`: geometric "
    "mean, worst. `buffer above both tiles`: how many programs hold one."
)
SURVEY = "Every pair of the survey"
SECTIONS = (
    Section(
        "survey",
        SURVEY,
        "bench.jax_resharding",
        ("--quick",),
        says="`device_put`: `jax.device_put` onto the target's sharding, by way of an array of the "
        "whole on the host, which here is the same memory: no measure of machines with links. "
        "`Shardy`: the steps of its reshard pass, lowered by our jax backend.",
        needs=("jax",),
        install="pip install 'redistrib[jax]'",
    ),
    Section(
        "paper",
        "The paper's strategy",
        "bench.paper_comparison",
        ("--pairs", "10"),
        says="Plans on seeded pairs, nothing was run. `received`: bytes over the lower bound, "
        "geometric mean and worst. Three figures in a cell are of `paper`, `collectives` and "
        "`direct`; planning is in CPU milliseconds, median.",
    ),
    Section(
        "prices",
        "Prices",
        "bench.oracle",
        ("--quick",),
        says="CPU time of a price; `_us`: microseconds, `ms`: milliseconds. `matrix`: all pairs of "
        "a mesh's layouts at once, over Shardy's pass alone. `single`: one pair that was never "
        "asked, over Shardy's whole Python call; `warm`: asked before. `target`: what the ratio "
        "before it shall not exceed. `detours`: over the cheapest way through other layouts, at "
        "worst, the `planner` alone (`above_1.05`: on so many pairs by more than that), and the "
        "oracle's `cost` on 200 pairs, half of them the worst. `misaligned`: 60 pairs whose digits "
        "do not match, a matrix of all pairs over the planner alone, and `cost` over the matrix. "
        "`alpa`: its formula on the same questions.",
    ),
    Section(
        "mpi",
        "MPI and its peers",
        "bench.mpi_exchange",
        ("--quick", "--only", "on 4"),
        ("--only", "f32, 128 MiB"),
        "Time of the slowest rank over that of one Alltoallw with subarray types, medians over "
        "rounds: below 1 is faster. In parentheses: quartiles over rounds. `shared`: into memory "
        "that the ranks of a node share. `extra`: memory that a call of redistrib takes beside "
        "source and target.",
        ("mpi4py",),
        "pip install mpi4py mpich",
    ),
    Section(
        "tpu",
        "Compiled for TPU v5e, 4x4",
        "bench.jax_ahead_of_time",
        None,
        ("tpu", *_COMPILED),
        _COMPILED_SAYS,
        ("jax", "libtpu"),
        "make bench-peers",
    ),
    Section(
        "gpu",
        "Compiled for 16 GPUs, H100 by default",
        "bench.jax_ahead_of_time",
        None,
        ("gpu", *_COMPILED),
        _COMPILED_SAYS,
        ("jax", "jax_cuda12_plugin", "nvidia.cuda_nvcc"),
        "make bench-peers",
    ),
)


def text_of(section: Section, options: Sequence[str]) -> dict[str, str]:
    """What a section's program prints with these options, as `text`: below a line with its command,
    headings two levels deeper. Where it could not run, NOT_RUN and why.
    """
    # A page has no paths of the machine.
    shown = [Path(option).name if Path(option).is_absolute() else option for option in options]
    command = f"python -m {section.module} {shlex.join(shown)}".strip()
    python = find_python(section.needs)
    if python is None:
        needed = " and ".join(section.needs)
        return {NOT_RUN: f"no Python here has {needed} ({section.install})"}
    environment = dict(os.environ)
    if directory := packages():
        environment.setdefault("REDISTRIB_MPI_PEERS", directory)
    process = subprocess.Popen(
        [python, "-m", section.module, *options],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        out, errors = finish(process, TIMEOUT)
    except subprocess.TimeoutExpired:
        return {NOT_RUN: f"`{command}` did not end in {TIMEOUT:g} s"}
    if process.returncode:
        message = (errors.strip().splitlines() or [""])[-1].replace(str(ROOT), ".")
        return {NOT_RUN: f"`{command}` ended with status {process.returncode}: {message}"}
    printed = re.sub(r"^#", "###", out.strip(), flags=re.MULTILINE)
    return {"text": "\n\n".join(filter(None, [f"`{command}`. {section.says}".strip(), printed]))}
