"""A worker: a process that prepares one workload at a time and runs it when asked.

Requests and answers are lines of JSON on stdin and stdout, one answer per request.

    {"prepare": WORKLOAD}   {"status": "ok", "timed": true, FIGURES...}
    {"time": REPEATS}       {"status": "ok", "seconds": of one run}

`status` is one of ok, wrong, unsupported, crashed; the last three come with a `detail`. What a
library prints goes to stderr. Nothing but the standard library is imported here, since a worker
may run in a Python that has no redistrib.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

Figures = dict[str, Any]
Run = Callable[[], object]

MEMORY = "REDISTRIB_BENCH_MEMORY"
"""The environment variable with the bytes of data that a process may have."""


class UnsupportedError(Exception):
    """The runner has no word for these layouts, or no plan."""


class WrongError(Exception):
    """The runner's answer is not the target's layout."""


def limit_memory() -> None:
    """Hold this process to its limit: what asks for more gets an error instead of the machine."""
    if limit := int(os.environ.get(MEMORY, "0")):
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def requests() -> Iterator[Figures]:
    """The requests on stdin."""
    for line in sys.stdin:
        yield json.loads(line)


def speaker() -> Callable[[Figures], None]:
    """A function that answers on stdout; from here on anything else printed goes to stderr."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(answer: Figures) -> None:
        out.write(json.dumps(answer) + "\n")
        out.flush()

    return say


def serve(prepare: Callable[[Figures], tuple[Figures, Run | None]]) -> None:
    """Answer until stdin ends.

    `prepare` takes a workload and gives figures and what is to be timed, if anything; it raises
    UnsupportedError and WrongError.
    """
    limit_memory()
    say = speaker()
    run: Run | None = None
    for request in requests():
        if "prepare" in request:
            run = None  # frees the arrays of the last workload
            answer, run = attempt(partial(prepare, request["prepare"]))
            say(answer)
        else:
            assert run is not None
            say({"status": "ok", "seconds": seconds(run, request["time"])})


def serve_ranks(
    prepare: Callable[[Figures], tuple[Figures, Run | None]],
    rank: int,
    share: Callable[[Figures | None], Figures | None],
    barrier: Callable[[], object],
    say: Callable[[Figures], None],
) -> None:
    """`serve` on every rank of a job, of which rank 0 says the answers.

    `share` gives all the request of rank 0, None at the end; `say` is from `speaker`.
    """
    incoming = requests() if not rank else iter(())
    run: Run | None = None
    while (request := share(next(incoming, None))) is not None:
        if "prepare" in request:
            run = None
            answer, run = attempt(partial(prepare, request["prepare"]))
        else:
            assert run is not None
            barrier()
            answer = {"status": "ok", "seconds": seconds(run, request["time"])}
            barrier()
        if not rank:
            say(answer)


def attempt(prepare: Callable[[], tuple[Figures, Run | None]]) -> tuple[Figures, Run | None]:
    """What `prepare` gives, with a status, also where it raises."""
    try:
        figures, run = prepare()
    except UnsupportedError as error:
        return {"status": "unsupported", "detail": str(error)}, None
    except WrongError as error:
        return {"status": "wrong", "detail": str(error)}, None
    except Exception as error:  # noqa: BLE001 - whatever a library raises is its result
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        return {"status": "crashed", "detail": text[:300]}, None
    return {"status": "ok", "timed": run is not None, **figures}, run


def seconds(run: Run, repeats: int) -> float:
    """Mean wall-clock seconds of one run."""
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats
