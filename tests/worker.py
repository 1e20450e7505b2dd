"""Cases that need a process of their own, for devices that must be set up before jax starts.

A worker module registers cases and runs them all in one process; the test module starts it once and
asserts each case by name. By hand: `XLA_FLAGS=--xla_force_host_platform_device_count=16 python -m
tests.NAME [CASE ...]`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.repetitions import repetitions

ROOT = Path(__file__).parents[1]


class Cases(dict[str, Callable[[], None]]):
    """The cases of a worker, by name; used as a decorator."""

    def __call__(self, function: Callable[[], None]) -> Callable[[], None]:
        self[function.__name__] = function
        return function

    def main(self) -> None:
        """Print a JSON object: case -> "" if it holds, else what went wrong.

        All cases, or those named on the command line.
        """
        outcome = {}
        chosen = sys.argv[1:] or [*self]
        for name in chosen:
            start = time.perf_counter()
            try:
                self[name]()
                outcome[name] = ""
            except (Exception, pytest.fail.Exception):  # noqa: BLE001 - the parent reports it
                outcome[name] = traceback.format_exc()
            print(f"{time.perf_counter() - start:6.1f} s  {name}", file=sys.stderr)
        json.dump(outcome, sys.stdout)


def cpu_devices(count: int) -> dict[str, str]:
    """An environment in which jax has so many virtual devices.

    LLVM optimises nothing: XLA's passes, whose programs are looked at, and buffers are as ever.
    """
    flags = f"--xla_force_host_platform_device_count={count} --xla_backend_optimization_level=0"
    return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


def outcome_of(module: str, cases: tuple[str, ...], devices: int) -> dict[str, str]:
    """What the cases of a worker module came to on so many devices; they must be these."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-m", module],
        cwd=ROOT,
        env=cpu_devices(devices),
        capture_output=True,
        text=True,
        timeout=repetitions(600, 3600),
        check=False,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    found: dict[str, str] = json.loads(run.stdout)
    assert set(found) == set(cases)
    return found
