"""The other benchmarks of this directory, run as they are; what they print becomes a section."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.peers import ROOT, find_python, packages

TARGET = "TARGET_CONFIG"
"""Stands for the file that describes a GPU."""
TIMEOUT = 3600.0


@dataclass(frozen=True, slots=True)
class Section:
    """A program that prints Markdown; options of the quick and of the full form.

    None: it has no quick form. `needs` are modules without which it cannot run, here or in the
    environment of the peers; `install` is what brings them.
    """

    key: str
    title: str
    module: str
    quick: tuple[str, ...] | None
    full: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    install: str = ""


_COMPILED = ("--programs", "ours,xla", "--every", "4")
SECTIONS = (
    Section("paper", "The paper's strategy", "bench.paper_comparison", ("--pairs", "10")),
    Section("prices", "Prices", "bench.oracle", ("--quick",)),
    Section(
        "mpi",
        "MPI and its peers",
        "bench.mpi_exchange",
        ("--quick",),
        ("--only", "f32, 128 MiB"),
        ("mpi4py",),
        "pip install mpi4py mpich",
    ),
    Section(
        "tpu",
        "Compiled for TPU v5e, 4x4",
        "bench.jax_ahead_of_time",
        None,
        ("tpu", *_COMPILED),
        ("jax", "libtpu"),
        "make bench-peers",
    ),
    Section(
        "gpu",
        "Compiled for 16 H100",
        "bench.jax_ahead_of_time",
        None,
        ("gpu", "--target-config", TARGET, *_COMPILED),
        ("jax", "jax_cuda12_plugin"),
        "make bench-peers",
    ),
)


def text_of(section: Section, quick: bool, target: Path | None = None) -> str | None:
    """What a section's program prints below a line with its command, headings two levels deeper.

    None if it has no such form; one line that says why where it could not run.
    """
    options = section.quick if quick else section.full
    if options is None:
        return None
    command = f"python -m {section.module} {shlex.join(options)}".strip()
    python = find_python(section.needs)
    if python is None:
        return f"`{command}`: not run, there is no {section.needs[-1]} here ({section.install})."
    if TARGET in options and target is None:
        return f"`{command}`: not run, --gpu-target names no file that describes the GPU."
    environment = dict(os.environ)
    if found := packages():
        environment.setdefault("REDISTRIB_MPI_PEERS", found)
    given = [str(target) if option == TARGET else option for option in options]
    try:
        answer = subprocess.run(
            [python, "-m", section.module, *given],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"`{command}` did not end in {TIMEOUT:g} s."
    if answer.returncode:
        # A page has no paths of the machine.
        said = (answer.stderr.strip().splitlines() or [""])[-1].replace(str(ROOT), ".")
        return f"`{command}` ended with status {answer.returncode}: {said}"
    return f"`{command}`:\n\n" + re.sub(r"^#", "###", answer.stdout.strip(), flags=re.MULTILINE)
