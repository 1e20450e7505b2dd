"""Ranks under a real mpiexec that run one case after the other, fed over a unix socket."""

from __future__ import annotations

import json

from redistrib.demo.launch import Installation, kill, start
from tests import pool


class Pool(pool.Pool):
    """So many ranks of an MPI, waiting for cases; rank 0 is connected."""

    def __init__(self, installation: Installation, ranks: int, **environment: str) -> None:
        self.ranks = ranks
        super().__init__(
            f"{installation.name}, {ranks} ranks",
            1,
            lambda path: start(
                installation, ranks, "-m", "tests.mpi.rank", path, environment=environment
            ),
        )

    def run(self, case: str, *arguments: object, timeout: float = 120) -> dict[str, str]:
        """What failed, by rank. Raises if the ranks end or hang; the pool is of no use then."""
        (connection,), (answers,) = self.connections, self.answers
        connection.settimeout(timeout)
        connection.sendall((json.dumps([case, arguments]) + "\n").encode())
        try:
            answer = answers.readline()
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
