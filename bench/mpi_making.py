"""What one rank's part of a redistribution takes to make, in models of many ranks.

python -m bench.mpi_making [SIDE ...]

Of SIDE x SIDE ranks, none of which runs; printed is CPU time.
"""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace
from typing import Any

import redistrib as rd
from redistrib.backends.mpi.datatypes import Datatypes
from redistrib.backends.mpi.exchange import End
from redistrib.backends.mpi.flows import Channel
from redistrib.backends.mpi.phases import between

JOBS = (
    ("[{n}{{x}}, {n}{{y}}]", "[{n}{{y}}, {n}{{x}}]"),
    ("[{n}{{x}}, {side}]", "[{n}, {side}{{x}}]"),
    ("[{n}, {side}] sum{{x}}", "[{n}{{x}}, {side}]"),
    ("[{n}{{x,y}}, {n}]", "[{n}, {n}{{x,y}}]"),
    ("[{n}, {side}] sum{{x,y}}", "[{n}{{x,y}}, {side}]"),
)


def measure(side: int, src: str, dst: str) -> tuple[int, float]:
    """To how many ranks one sends, and the seconds that it takes to find out."""
    size = side * side
    mesh = rd.Mesh(x=side, y=side)
    a, b = (rd.ArrayType.parse("f32" + t.format(n=4 * size, side=side), mesh) for t in (src, dst))
    comm: Any = SimpleNamespace(rank=size // 3, size=size)
    start = time.process_time()
    before, after = (End.on(t, range(size), size, None, False) for t in (a, b))
    phase: Any = between(before, after, Channel(comm, Datatypes()), a.numpy_dtype, 1 << 20)
    return len(phase.sends), time.process_time() - start


def main() -> int:
    print("| ranks | from | to | sends to | s |\n|---|---|---|---|---|")
    for side in [int(text) for text in sys.argv[1:]] or [16, 32, 64, 128]:
        for src, dst in JOBS:
            peers, seconds = measure(side, src, dst)
            named = (text.format(n="n", side="m") for text in (src, dst))
            print(f"| {side * side} | {' | '.join(named)} | {peers} | {seconds:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
