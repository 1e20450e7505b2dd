"""A job of several processes that run one case after the other, each fed over a unix socket."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Self

from redistrib.demo.launch import kill

GRACE = 60.0
"""Seconds in which a process of a pool ends by itself after its socket was closed."""


def end_with(connection: socket.socket, grace: float = GRACE) -> None:
    """End this process, whatever it is in, soon after the other end of the socket is gone.

    A process of a pool whose parent was killed would wait for the others forever.
    """

    def watch() -> None:
        hung_up = select.poll()
        hung_up.register(connection, 0)
        hung_up.poll()
        time.sleep(grace)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


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
