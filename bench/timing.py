"""Timing on a shared machine: interleaved calls, medians, quartiles.

The calls that are compared take turns, so that a busy machine slows all of them alike. The figures
are CPU time of the process: unlike the time on the wall they leave out the time in which others
had the core. Both are kept.
"""

from __future__ import annotations

import gc
import platform
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from math import exp, log
from pathlib import Path
from statistics import fmean, median, quantiles
from types import MappingProxyType

Times = dict[str, tuple[float, float]]
"""Per call its median microseconds: CPU, and on the wall."""

Prepare = Callable[[], Callable[[], object]]
"""Builds the inputs anew, untimed, and returns the call that is timed."""


@dataclass(frozen=True, slots=True)
class Timed:
    """One call: nanoseconds of CPU and on the wall."""

    cpu: int
    wall: int


Call = Callable[[], Timed]
EMPTY: Mapping[str, Call] = MappingProxyType({})


def timed(call: Callable[[], object]) -> Timed:
    """Run a call once."""
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    call()
    return Timed(time.process_time_ns() - cpu, time.perf_counter_ns() - wall)


def interleave(
    calls: Mapping[str, Call], rounds: int, rng: random.Random, between: Mapping[str, Call] = EMPTY
) -> Times:
    """Median CPU and wall microseconds of each call over `rounds` rounds, in random order each.

    A call finds the caches as the last one left them, so each of `calls` is followed by one of
    `between`, taken in turn: neither library runs on what it has just warmed. A round before these
    is not counted. With more names in `between` than in `calls`, some of them would not be called.
    """
    assert len(between) <= len(calls)
    samples: dict[str, list[Timed]] = {name: [] for name in (*calls, *between)}
    for turn in range(rounds + 1):
        others = cycle(rng.sample(list(between), len(between)))
        for name in rng.sample(list(calls), len(calls)):
            sample = calls[name]()
            if turn:
                samples[name].append(sample)
            for other in islice(others, 1):
                sample = between[other]()
                if turn:
                    samples[other].append(sample)
    return {name: medians(times) for name, times in samples.items()}


def medians(times: Sequence[Timed]) -> tuple[float, float]:
    """Median microseconds of CPU and on the wall."""
    return median(t.cpu for t in times) / 1e3, median(t.wall for t in times) / 1e3


def here(prepare: Prepare) -> Call:
    """A call in this process, as `interleave` takes it."""
    return lambda: timed(prepare())


def settle() -> None:
    """Take what was imported out of the collector's sight: a library's modules are not garbage."""
    gc.collect()
    gc.freeze()


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and the largest of some figures."""
    if len(values) == 1:
        low, mid, high = [values[0]] * 3
    else:
        low, mid, high = quantiles(values, n=4, method="inclusive")
    return {"median": mid, "q1": low, "q3": high, "max": max(values)}


def geometric_mean(values: Iterable[float]) -> float:
    """exp of the mean log; values above 0."""
    return exp(fmean(map(log, values)))


def machine() -> dict[str, str | int]:
    """Processor, cores and load, without names that identify the machine."""
    model, cores = platform.processor() or platform.machine(), 0
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else []:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            model, cores = value.strip(), cores + 1
    load = Path("/proc/loadavg")
    return {
        "cpu": model,
        "cores": cores,
        "load": load.read_text().split()[0] if load.exists() else "unknown",
        "system": platform.system(),
    }
