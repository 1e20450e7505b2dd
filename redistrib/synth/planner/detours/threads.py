"""Blocks of a large matrix in several threads: numpy holds no lock of the interpreter meanwhile.

>>> with in_threads(2) as each:
...     list(each(abs, [-1, 2]))
[1, 2]
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

MAX_THREADS = 4
"""Each holds a block of its own, some 20 MiB, and what they all read comes from one memory."""

Map = Callable[[Callable[[int], Any], Iterable[int]], Iterator[Any]]


@contextmanager
def in_threads(blocks: int) -> Iterator[Map]:
    """`map`, in as many threads as there are processors and blocks, where that is more than one.

    What is not begun when an error leaves the context is not done.
    """
    threads = min(blocks, MAX_THREADS, _processors())
    if threads < 2:
        yield map
        return
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)


def _processors() -> int:
    """Those that this process may use, where the system says which."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
