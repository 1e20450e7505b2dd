"""A job of several processes that run one case after the other, each fed over a unix socket."""

from __future__ import annotations

import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from redistrib.demo.launch import kill


class Pool:
    """A job whose processes connect to this one, and wait for cases; at its end none is left.

    start: starts the job, as a session of its own, given the path of the socket.
    """

    def __init__(
        self, name: str, connections: int, start: Callable[[str], subprocess.Popen[str]]
    ) -> None:
        self.name = name
        self.connections: list[socket.socket] = []
        self._directory = tempfile.TemporaryDirectory(prefix="pool-")
        path = str(Path(self._directory.name) / "socket")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(connections)
            self.process = start(path)
            try:
                self._connect(listener, connections)
            except BaseException:
                self._end(kill_it=True)
                raise
        self.answers = [connection.makefile() for connection in self.connections]

    def _connect(self, listener: socket.socket, count: int) -> None:
        """So many connections, as they come. Raises if the job ends before that."""
        listener.settimeout(0.5)
        for _ in range(240 + count):
            try:
                self.connections.append(listener.accept()[0])
            except TimeoutError:
                if self.process.poll() is not None:
                    _, errors = self.process.communicate()
                    raise AssertionError(f"{self.name} does not start: {errors[-4000:]}") from None
            if len(self.connections) == count:
                return
        raise AssertionError(f"{self.name} does not start")

    def _end(self, *, kill_it: bool) -> None:
        for connection in self.connections:
            connection.close()
        try:
            if kill_it:
                kill(self.process)
            else:
                self.process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            kill(self.process)
            raise
        finally:
            self._directory.cleanup()

    def close(self) -> None:
        """End the processes."""
        self.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: object, __: TracebackType | None
    ) -> None:
        for answers in self.answers:
            answers.close()
        self._end(kill_it=kind is not None)
