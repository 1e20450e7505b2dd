"""Ranks of one torch.distributed job that run one case after the other, each fed over a socket."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from redistrib.demo.launch import kill

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("REDISTRIB_TORCH", ROOT / ".venv-torch")) / "bin" / "python"


class Pool:
    """So many ranks over gloo, waiting for cases."""

    def __init__(self, ranks: int) -> None:
        if not PYTHON.exists():
            raise FileNotFoundError(f"torch is not set up: make test does it ({PYTHON})")
        self.ranks = ranks
        self._directory = tempfile.TemporaryDirectory(prefix="pool-")
        path = str(Path(self._directory.name) / "socket")
        self._connections: list[socket.socket] = []
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(ranks)
            self.process = subprocess.Popen(
                [str(PYTHON), "-m", "tests.torch.ranks", str(ranks), path],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            try:
                self._connect(listener)
            except BaseException:
                self._end(kill_it=True)
                raise
        self._answers = [connection.makefile() for connection in self._connections]

    def _connect(self, listener: socket.socket) -> None:
        """A connection from each rank, which says its number. Raises if the job ends before."""
        said: dict[int, socket.socket] = {}
        listener.settimeout(0.5)
        for _ in range(240):
            try:
                connection = listener.accept()[0]
                said[int(connection.recv(8))] = connection
            except TimeoutError:
                if self.process.poll() is not None:
                    _, errors = self.process.communicate()
                    raise AssertionError(f"the ranks do not start: {errors[-4000:]}") from None
            if len(said) == self.ranks:
                self._connections = [said[rank] for rank in range(self.ranks)]
                return
        raise AssertionError("the ranks do not start")

    def run(
        self, case: str, *arguments: object, timeout: float = 120, lost: Sequence[int] = ()
    ) -> dict[str, str]:
        """What failed, by rank. Raises if the ranks end or hang; the pool is of no use then.

        `lost`: the ranks that are to end, without an answer.
        """
        for connection in self._connections:
            connection.settimeout(timeout)
            connection.sendall((json.dumps([case, arguments]) + "\n").encode())
        failed: dict[str, str] = {}
        for number, answers in enumerate(self._answers):
            try:
                answer = answers.readline()
            except TimeoutError:
                kill(self.process)
                raise AssertionError(f"the ranks hung in {case}{arguments}; {failed}") from None
            if not answer and number in lost:
                continue
            if not answer:
                kill(self.process)
                raise AssertionError(f"a rank ended in {case}{arguments}; {failed}")
            failed |= json.loads(answer)
        return failed

    def _end(self, *, kill_it: bool) -> None:
        for connection in self._connections:
            connection.close()
        try:
            if kill_it:
                kill(self.process)
            else:
                self.process.communicate(timeout=30)
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
        for answers in self._answers:
            answers.close()
        self._end(kill_it=kind is not None)
