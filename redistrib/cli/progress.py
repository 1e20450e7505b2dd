"""A line on stderr for what takes long."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 2.0
"""Seconds before the first line, and between lines."""

RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK")


def is_first_rank() -> bool:
    """Whether this is the first process of an MPI program, or of none."""
    return all(os.environ.get(name, "0") == "0" for name in RANKS)


@contextmanager
def progress(task: str, every: float = PATIENCE) -> Iterator[None]:
    """Say on stderr, every few seconds, that something still runs; of many ranks the first says it.

    The thread needs no help from what runs, which may be one long call.
    """
    if not is_first_rank():
        yield
        return
    done = threading.Event()
    start = time.monotonic()

    def tell() -> None:
        while not done.wait(every):
            sys.stderr.write(f"{task}: {time.monotonic() - start:.0f} s\n")
            sys.stderr.flush()

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()
