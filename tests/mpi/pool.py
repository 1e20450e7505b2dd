"""Ranks under a real mpiexec that run one case after the other, fed over a unix socket."""

from __future__ import annotations

import json
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from redistrib.demo.launch import Installation, kill, start


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
            _, errors = self.process.communicate(timeout=30)
            said = f"{self.name} hung in {case}{arguments}: {errors[-4000:]}"
            raise AssertionError(said) from None
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
            self.process.communicate(timeout=60)
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
