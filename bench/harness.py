"""Runs workers under limits, and lets them take turns for the clock.

A worker is a process of bench/workers. It has so many seconds per answer and so many bytes of
data; one that is late, crashes or says it is wrong is recorded as such, and the next workload gets
a new process. All workers of a workload are prepared first; then those that are right run in
rounds, each once per round in random order, so that a busy machine slows all of them alike. The
speed-up of a runner is the median over rounds of the baseline's seconds over its own in the same
round.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench.peers import ROOT
from bench.timing import spread
from bench.workers.protocol import MEMORY
from bench.workloads import Workload

BASELINE = "XLA"
AGAIN = "XLA again"
"""The baseline in a second process: what its speed-up is off 1 by is noise."""
DEVICES = "{devices}"
"""Stands for the number of devices in a runner's command."""
SHORTEST = 0.02
"""Seconds below which a run is repeated within its turn."""
FEWEST = 3
"""Rounds that even the slowest takes part in."""

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Runner:
    """A command that is a worker; `missing` says why it cannot start here, if it cannot.

    `groups` are the groups of workloads that it takes part in, all of them if None.
    """

    name: str
    command: tuple[str, ...]
    missing: str = ""
    groups: tuple[str, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    def takes(self, workload: Workload) -> bool:
        """Whether it is asked about a workload at all."""
        return self.groups is None or workload.group in self.groups


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds per answer, bytes of data per process; rounds, and seconds of a runner's turns."""

    answer_seconds: float = 120.0
    memory_bytes: int = 12 << 30
    rounds: int = 7
    turns: float = 0.7


def runners(torch_python: str | None, mpi: bool = True) -> list[Runner]:
    """Every runner, whether or not it is installed here."""
    jax = "" if importlib.util.find_spec("jax") else "pip install 'redistrib[jax]'"
    # Beside this interpreter, or else on the path; not resolved, for an environment's is a link.
    beside = Path(sys.executable).parent / "mpiexec"
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
    no_mpi = "" if mpiexec and importlib.util.find_spec("mpi4py") else "pip install mpi4py mpich"
    programs = ("xla", "xla", "auto", "collectives", "direct", "paper", "shardy")
    names = (BASELINE, AGAIN, "ours", "collectives", "direct", "paper", "Shardy")
    flags = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=16",
    }
    result = [
        Runner(name, (sys.executable, "-m", "bench.workers.programs", program), jax, None, flags)
        for name, program in zip(names, programs, strict=True)
    ]
    dtensor = (torch_python or sys.executable, "-m", "bench.workers.dtensor", DEVICES)
    result.append(Runner("DTensor", dtensor, "" if torch_python else "make bench-peers"))
    if mpi:
        rank = (sys.executable, "-m", "mpi4py", "-m", "bench.workers.mpi")
        command = (mpiexec or "mpiexec", "-n", DEVICES, *rank)
        result.append(Runner("ours on MPI", command, no_mpi, ("real",)))
    return result


class LostError(Exception):
    """A worker that gave no answer; the status to record, and what is known."""

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Worker:
    """A started worker."""

    def __init__(self, command: Sequence[str], limits: Limits, environment: Mapping[str, str]):
        self.command = tuple(command)
        self._limits = limits
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `stop`
        self._buffer = b""
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | dict(environment) | {MEMORY: str(limits.memory_bytes)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            start_new_session=True,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def ask(self, request: Figures) -> Figures:
        """The answer to a request. Raises LostError if there is none; then the worker is gone."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            line = self._line(time.monotonic() + self._limits.answer_seconds)
        except (BrokenPipeError, EOFError):
            raise self._lost() from None
        except TimeoutError:
            self.stop()
            late = f"no answer in {self._limits.answer_seconds:g} s"
            raise LostError("timeout", late) from None
        answer: Figures = json.loads(line)
        return answer

    def _line(self, deadline: float) -> bytes:
        assert self._process.stdout is not None
        while b"\n" not in self._buffer:
            ready, _, _ = select.select(
                [self._process.stdout], [], [], max(0.0, deadline - time.monotonic())
            )
            if not ready:
                raise TimeoutError
            read = os.read(self._process.stdout.fileno(), 1 << 16)
            if not read:
                raise EOFError
            self._buffer += read
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _lost(self) -> LostError:
        """How a process that closed its pipes ended."""
        try:
            status = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            status = 0
        self._errors.seek(0)
        printed = [
            line.strip() for line in self._errors.read().decode(errors="replace").splitlines()
        ]
        self.stop()
        if status < 0:
            return LostError("crashed", signal.Signals(-status).name)
        errors = [line for line in printed if "rror" in line] or printed or ["no message"]
        return LostError("crashed", f"exit status {status}: {errors[-1][:300]}")

    def stop(self) -> None:
        """End the process and its children, and wait for it."""
        if self._errors.closed:
            return
        if self._process.poll() is None:
            # The whole session: mpiexec and the ranks of DTensor have children.
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                stream.close()


class Team:
    """The workers of all runners, started when they are first needed."""

    def __init__(self, members: Sequence[Runner], limits: Limits, seed: int = 0) -> None:
        self._members = members
        self._limits = limits
        self._random = random.Random(seed)
        self._workers: dict[str, Worker] = {}

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End all workers; the next workload starts new ones."""
        for worker in self._workers.values():
            worker.stop()
        self._workers.clear()

    def measure(self, workload: Workload, clock: bool = True) -> dict[str, Figures]:
        """One record per runner. Without `clock` nothing is timed."""
        takers = [runner for runner in self._members if runner.takes(workload)]
        records: dict[str, Figures] = {}
        for runner in takers:
            if runner.missing:
                records[runner.name] = {"status": "not installed", "detail": runner.missing}
            else:
                self._start(runner, workload.devices)
                records[runner.name] = self._ask(runner.name, {"prepare": workload.request})
        if clock:
            self._take_turns(records)
        for record in records.values():
            record.pop("timed", None)
        return records

    def _start(self, runner: Runner, devices: int) -> None:
        """A worker for so many devices; the one that runs, if it is such a one."""
        command = tuple(part.replace(DEVICES, str(devices)) for part in runner.command)
        running = self._workers.get(runner.name)
        if running is not None and running.command != command:
            self._workers.pop(runner.name).stop()
        if runner.name not in self._workers:
            self._workers[runner.name] = Worker(command, self._limits, runner.environment)

    def _ask(self, name: str, request: Figures) -> Figures:
        try:
            return self._workers[name].ask(request)
        except LostError as lost:
            del self._workers[name]
            return {"status": lost.status, "detail": str(lost)}

    def _take_turns(self, records: dict[str, Figures]) -> None:
        """Add seconds and speed-ups to the records of the runners that can be timed."""
        repeats: dict[str, int] = {}
        for name, record in records.items():
            if record.get("timed"):
                warm = self._ask(name, {"time": 1})
                if warm["status"] == "ok":
                    repeats[name] = math.ceil(SHORTEST / max(warm["seconds"], SHORTEST / 50))
                else:
                    records[name] = record | warm
        rounds: list[dict[str, float]] = []
        spent = dict.fromkeys(repeats, 0.0)
        for number in range(self._limits.rounds):
            taken = {}
            for name in self._random.sample(list(repeats), len(repeats)):
                # Who is slow sits out the later rounds; the baseline is in all of them.
                if name != BASELINE and number >= FEWEST and spent[name] > self._limits.turns:
                    continue
                turn = self._ask(name, {"time": repeats[name]})
                if turn["status"] == "ok":
                    taken[name] = turn["seconds"]
                    spent[name] += turn["seconds"] * repeats[name]
                else:
                    records[name] |= turn
                    del repeats[name]
            rounds.append(taken)
        for name in repeats:
            turns = [taken for taken in rounds if name in taken]
            records[name]["seconds"] = median(taken[name] for taken in turns)
            if BASELINE in repeats:
                ratios = [taken[BASELINE] / taken[name] for taken in turns]
                records[name]["speed_up"] = {**spread(ratios), "rounds": len(turns)}
