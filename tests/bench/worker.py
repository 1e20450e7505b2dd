"""Workers that misbehave on purpose:  python -m tests.bench.worker KIND [LOG]

Each is a real process that talks to the harness as those of bench/workers do; "off by one" is the
real one for jax with a program that adds one to every element.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from bench.workers.protocol import Figures, Run, WrongError, serve

KIND = next(iter(sys.argv[1:]), "")
SECONDS = {"fast": 0.01, "slow": 0.04}


def prepare(workload: Figures) -> tuple[Figures, Run]:
    if len(sys.argv) > 2:
        with Path(sys.argv[2]).open("a", encoding="utf-8") as log:
            log.write(workload["src"] + "\n")
    match KIND:
        case "hangs":
            time.sleep(600)
        case "wrong":
            raise WrongError("device 0 holds other data")
        case "divides by zero":
            os.kill(os.getpid(), signal.SIGFPE)
        case "exits":
            print("SomeError: gone", file=sys.stderr)
            os._exit(3)
        case "hungry":
            bytearray(1 << 30)
    return {"received_bytes": 10, "noise": time.time()}, run


def run() -> None:
    if KIND == "hangs when timed":
        time.sleep(600)
    time.sleep(SECONDS.get(KIND, 0.01))


def off_by_one() -> None:
    from bench.workers import programs
    from redistrib.backends import jax as rjax

    compile_right = rjax.compile

    def compile_wrong(plan: object, mesh: object) -> object:
        import jax

        right = compile_right(plan, mesh)
        return jax.jit(lambda x: right(x) + 1)

    rjax.compile = compile_wrong
    serve(lambda workload: programs.prepare("auto", workload))


if __name__ == "__main__":
    if KIND == "off by one":
        off_by_one()
    else:
        serve(prepare)
