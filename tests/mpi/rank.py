"""One rank of a pool: python -m mpi4py -m tests.mpi.rank SOCKET

Rank 0 reads lines [case, arguments] from the socket; all ranks run the case; rank 0 answers with
what failed on any rank. Ends when the socket is closed.
"""

from __future__ import annotations

import faulthandler
import json
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from mpi4py import MPI

import tests.mpi.daily_cases
import tests.mpi.fault_cases
import tests.mpi.fuzz
import tests.mpi.late_cases
import tests.mpi.model_cases
import tests.mpi.report_cases
import tests.mpi.safety_cases
import tests.mpi.shared_cases
import tests.mpi.step_cases  # noqa: F401 - they add to CASES
from redistrib.backends.mpi import streams
from tests.mpi.cases import CASES
from tests.pool import end_with

LATE = 100.0
"""Seconds after which a rank writes where it is: the parent kills the pool after two minutes."""


def jobs(comm: MPI.Intracomm, path: str) -> Iterator[tuple[str, list[Any]] | None]:
    """What to run, the same on every rank. Waiting ranks sleep: there are more ranks than cores."""
    if comm.rank == 0:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            end_with(connection)
            for line in connection.makefile():
                job = json.loads(line)
                for rank in range(1, comm.size):
                    comm.send(job, rank)
                yield job
                answer = json.dumps(FAILED.pop())
                connection.sendall((answer + "\n").encode())
        for rank in range(1, comm.size):
            comm.send(None, rank)
        return
    while True:
        while not comm.Iprobe(0):
            time.sleep(0.0005)
        job = comm.recv(source=0)
        if job is None:
            return
        yield job


FAILED: list[dict[str, str]] = []


def main(path: str) -> None:
    comm = MPI.COMM_WORLD
    streams.FEW_RUNS = 0  # small tiles stand for large ones
    control = comm.Dup()
    for job in jobs(control, path):
        assert job is not None
        name, arguments = job
        faulthandler.dump_traceback_later(LATE)
        error = ""
        try:
            CASES[name](comm, *arguments)
        except (Exception, pytest.fail.Exception):  # noqa: BLE001 - rank 0 reports it
            error = traceback.format_exc()
            print(error, file=sys.stderr, flush=True)  # for a parent that waits for the others
        # A rank that failed alone would leave the others behind in the next case.
        errors = control.gather(error, root=0)
        faulthandler.cancel_dump_traceback_later()
        if comm.rank == 0:
            FAILED.append({str(rank): text for rank, text in enumerate(errors or ()) if text})


if __name__ == "__main__":
    main(sys.argv[1])
