"""The ranks of a pool: python -m tests.torch.ranks RANKS SOCKET

torch is imported once, then every rank is forked. Each reads lines [case, arguments] from its own
connection, runs the case and answers with what failed on it. Ends when the socket is closed.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import socket
import sys
import traceback
import warnings
from datetime import timedelta

import torch
import torch.distributed as dist

import tests.torch.drop_in_cases
import tests.torch.dtensor_cases
import tests.torch.gradient_cases
import tests.torch.memory_cases
import tests.torch.model_cases
import tests.torch.program_cases  # noqa: F401 - they add to CASES
from tests.pool import end_with
from tests.torch.cases import CASES

LATE = 100.0
"""Seconds after which a rank writes where it is: the parent kills the pool after two minutes."""
TIMEOUT = timedelta(seconds=20)


def serve(rank: int, ranks: int, path: str, port: int) -> None:
    """Run what the parent asks for, until it closes the connection."""
    store = dist.TCPStore("localhost", port, is_master=False)
    dist.init_process_group("gloo", rank=rank, world_size=ranks, store=store, timeout=TIMEOUT)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        end_with(connection)
        for line in connection.makefile():
            name, arguments = json.loads(line)
            faulthandler.dump_traceback_later(LATE)
            failed: dict[str, str] = {}
            try:
                CASES[name](*arguments)
            except BaseException:  # noqa: BLE001 - the parent reports it
                failed[str(rank)] = traceback.format_exc()
            faulthandler.cancel_dump_traceback_later()
            # A rank that failed alone would leave the others behind in the next case.
            with contextlib.suppress(OSError):
                connection.sendall((json.dumps(failed) + "\n").encode())
    dist.destroy_process_group()


def main(ranks: int, path: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    heard, told = zip(*(os.pipe() for _ in range(ranks)), strict=True)
    children = []
    for rank in range(ranks):
        child = os.fork()
        if not child:
            try:
                serve(rank, ranks, path, int(os.read(heard[rank], 8)))
            except BaseException:  # noqa: BLE001 - the rank ends here
                traceback.print_exc()
                os._exit(1)
            sys.stderr.flush()
            os._exit(0)
        children.append(child)
    # Served by a thread of this process, so it is begun when nothing is forked any more.
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    for pipe in told:
        os.write(pipe, f"{store.port}".encode())
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
