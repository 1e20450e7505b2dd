"""The other benchmarks of this directory, run as they are; what they print becomes a section."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from bench.campaign import progress
from bench.harness import ROOT


@dataclass(frozen=True, slots=True)
class Section:
    """A program that prints Markdown; options of the quick and of the full form.

    None: it has no quick form. `needs` is a module without which it cannot run.
    """

    title: str
    module: str
    quick: tuple[str, ...] | None
    full: tuple[str, ...] = ()
    needs: str = "numpy"


SECTIONS = (
    Section("The paper's strategy", "bench.paper_comparison", ("--pairs", "10")),
    Section("Prices", "bench.oracle", ("--quick",)),
    Section("MPI and its peers", "bench.mpi_exchange", ("--quick",), (), "mpi4py"),
    Section(
        "Programs compiled for TPU",
        "bench.jax_ahead_of_time",
        None,
        ("tpu", "--programs", "ours,xla", "--every", "10"),
        "libtpu",
    ),
)


def sections(quick: bool) -> Iterator[tuple[str, str]]:
    """Title and Markdown of each that can run here."""
    for section in SECTIONS:
        options = section.quick if quick else section.full
        if options is None or importlib.util.find_spec(section.module) is None:
            continue
        progress(section.title)
        yield section.title, text_of(section, options)


def text_of(section: Section, options: tuple[str, ...]) -> str:
    """What a section's program prints below a line with its command, headings two levels deeper."""
    command = " ".join(["python -m", section.module, *options])
    if importlib.util.find_spec(section.needs) is None:
        return f"`{command}`: not run, {section.needs} is not installed."
    answer = subprocess.run(
        [sys.executable, "-m", section.module, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        # A page has no paths of the machine.
        said = (answer.stderr.strip().splitlines() or [""])[-1].replace(str(ROOT), ".")
        return f"`{command}` ended with status {answer.returncode}: {said}"
    return f"`{command}`:\n\n" + re.sub(r"^#", "###", answer.stdout.strip(), flags=re.MULTILINE)
