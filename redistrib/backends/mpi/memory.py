"""How much memory a call takes beside what was there: sampled from the kernel's count."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

STATUS = Path("/proc/self/status")


def anonymous_bytes() -> int | None:
    """Anonymous resident memory of this process; None where the kernel does not tell (not Linux).

    Memory that ranks share, such as an MPI's own segments, is not in it.
    """
    if not STATUS.exists():
        return None
    for line in STATUS.read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return None


def peak_extra(call: Callable[[], object], interval: float = 0.0005) -> int:
    """The most anonymous memory while `call` runs, above what there was before, in bytes.

    Sampled every `interval` seconds by a thread, at least at the end; 0 where it cannot be known.
    """
    before = anonymous_bytes()
    if before is None:
        return 0
    most = before
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(interval):
            most = max(most, anonymous_bytes() or 0)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        call()
        most = max(most, anonymous_bytes() or 0)
    finally:
        done.set()
        watcher.join()
    return most - before
