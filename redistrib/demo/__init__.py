"""The main job: real workloads planned, run on every backend, verified, and shown beside XLA.

A backend runs where the registry says: the simulator in this process; jax, XLA's baseline and MPI
in processes of their own, because XLA needs its number of devices before it starts and crashes on
some layouts.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, assert_never

from redistrib.backends.registry import (
    BACKENDS,
    Backend,
    Processes,
    find_backend,
    find_mpiexec,
)
from redistrib.demo.table import format_table
from redistrib.demo.workloads import WORKLOADS, Workload, array_of, source_tile
from redistrib.errors import BackendError
from redistrib.synth.plan.data import Plan
from redistrib.synth.planner.choose import plan as plan_pair
from redistrib.types.tile import same_bits, tile_of

TIMEOUT = 90.0
"""Seconds that a process may take before it is killed."""

MAX_COMPILED = 512
"""Devices for which XLA compiles in seconds."""

Figures = dict[str, Any]
Planned = list[tuple[Workload, Plan]]


def run_demo(backends: list[str] | None = None, fmt: str = "text") -> int:
    """Run the workloads and print a table, or a JSON list; progress goes to stderr.

    `backends` are names of the registry; None is every one that is installed. Returns the exit
    status: 0 if every tile was right, 1 if not. A backend that is not installed is reported and is
    no failure, as long as another one runs. Raises BackendError for unknown backends.
    """
    named = {find_backend(name) for name in backends or ()}
    wanted = [backend for backend in BACKENDS if backends is None or backend in named]
    missing = {b.name: reason for b in wanted if (reason := b.missing())}
    if len(missing) == len(wanted):  # with nothing verified, nothing is right
        reasons = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
        raise BackendError(f"no backend that was asked for can run here: {reasons}")
    planned = []
    for workload in WORKLOADS:
        src, dst = workload.types()
        try:
            _ = src.numpy_dtype
        except BackendError as error:
            missing[workload.name] = str(error)
            _progress(f"{workload.name}: {error}")
        else:
            planned.append((workload, plan_pair(src, dst)))
    rows: list[Figures] = []
    for backend in wanted:
        name = backend.name
        if name in missing:
            _progress(f"{name}: {missing[name]}")
            continue
        match backend.processes:
            case Processes.THIS:
                figures = _run_here(backend, planned)
            case Processes.OWN:
                figures = _run_worker(name, _jobs(planned), [sys.executable], name)
            case Processes.RANKS:
                figures = _run_ranks(name, planned)
            case _:
                assert_never(backend.processes)
        rows += [{"backend": name, **row} for row in figures]
    baseline: dict[str, Figures] = {}
    if not find_backend("jax").missing():
        xla = _run_worker("xla", _jobs(planned), [sys.executable], "XLA")
        baseline = {row["workload"]: row for row in xla}
    answer = [_row(planned, row, baseline) for row in rows]
    if fmt == "json":
        sys.stdout.write(json.dumps(answer, indent=1) + "\n")
    else:
        sys.stdout.write(format_table(planned, answer, baseline, missing))
    sys.stdout.flush()
    return 0 if all(row["verified"] for row in rows) else 1


def xla_in_words(plan: Plan) -> str:
    """What XLA's own program between the two ends of a plan does, or why there is none.

    It is compiled, not run, on virtual CPU devices of another process, which XLA may take down.
    """
    if reason := find_backend("jax").missing():
        return reason
    if plan.src.mesh != plan.dst.mesh:
        return "compiled where both ends are on one mesh"
    devices = plan.src.mesh.num_devices
    if devices > MAX_COMPILED:
        return f"not compiled for more than {MAX_COMPILED} devices"
    (row,) = _run_worker("xla", [("", plan)], [sys.executable], "", devices)
    if "error" in row:
        return str(row["error"])
    if not row["expressible"]:
        return "no PartitionSpec says these layouts"
    counts = [f"{n} {kind.replace('-', '_')}" for kind, n in row["collectives"].items()]
    return (
        f"{row['received_bytes']} bytes received, largest array {row['largest_buffer_bytes']} "
        f"bytes: {', '.join(counts) or 'nothing moves'}"
    )


def _progress(text: str) -> None:
    sys.stderr.write(f"demo: {text}\n")
    sys.stderr.flush()


def _row(planned: Planned, row: Figures, baseline: dict[str, Figures]) -> Figures:
    """One entry of the answer, with the plan's bound and XLA's figures beside the backend's."""
    plan = next(p for workload, p in planned if workload.name == row["workload"])
    xla = baseline.get(row["workload"])
    if xla is not None:
        xla = {key: value for key, value in xla.items() if key != "workload"}
    keys = ("received_bytes", "temp_bytes", "largest_buffer_bytes", "num_collectives")
    return {
        "workload": row["workload"],
        "backend": row["backend"],
        "verified": row["verified"],
        **{key: row.get(key) for key in keys},
        "lower_bound_bytes": plan.lower_bound_bytes,
        "planned_received_bytes": plan.received_bytes,
        "error": row.get("error"),
        "xla": xla,
    }


def _run_here(backend: Backend, planned: Planned) -> Iterator[Figures]:
    module = backend.load()
    for number, (workload, plan) in enumerate(planned, 1):
        _progress(f"{backend.name} {number}/{len(planned)}: {workload.name}")
        array = array_of(plan.src)
        positions = range(plan.src.mesh.num_devices)
        tiles = module.run(plan, [source_tile(array, plan.src, p) for p in positions])
        right = all(same_bits(tiles[p], tile_of(array, plan.dst, p)) for p in positions)
        measured = module.measure(plan)
        yield {
            "workload": workload.name,
            "verified": right,
            "received_bytes": measured.received_bytes,
            "largest_buffer_bytes": measured.peak_tile_bytes,
            "num_collectives": plan.num_collectives,
        }


def _run_ranks(name: str, planned: Planned) -> Iterator[Figures]:
    """One mpiexec per number of ranks."""
    for ranks in sorted({plan.src.mesh.num_devices for _, plan in planned}):
        jobs = [job for job in _jobs(planned) if job[1].src.mesh.num_devices == ranks]
        # Under mpi4py a rank that raises aborts the others, which would wait for it.
        command = [find_mpiexec() or "", "-n", str(ranks), sys.executable, "-m", "mpi4py"]
        yield from _run_worker(name, jobs, command, f"{name}, {ranks} ranks")


def _jobs(planned: Planned) -> list[tuple[str, Plan]]:
    return [(workload.name, plan) for workload, plan in planned]


def _run_worker(
    kind: str,
    jobs: Sequence[tuple[str, Plan]],
    command: Sequence[str],
    title: str,
    devices: int = 16,
) -> Iterator[Figures]:
    """Figures of every named plan, from a worker; after a failure, another takes over behind it.

    `title` begins the lines of progress; without one there are none. `devices` is how many XLA has.
    """
    pending = list(jobs)

    def report(name: str, end: str = "") -> None:
        if title:
            _progress(f"{title} {len(jobs) - len(pending)}/{len(jobs)}: {name}{end}")

    with tempfile.TemporaryDirectory(prefix="redistrib-") as directory:
        while pending:
            path = Path(directory) / "plans.json"
            items = [{"workload": name, "plan": plan.to_json()} for name, plan in pending]
            path.write_text(json.dumps(items), encoding="utf-8")
            start = [*command, "-m", "redistrib.demo.worker", kind, str(path)]
            with _Worker(start, devices) as worker:
                for line in worker.lines():
                    if line.startswith("{"):
                        pending.pop(0)
                        result = json.loads(line)
                        report(result["workload"])
                        yield result
            if pending:
                name = pending.pop(0)[0]
                report(name, f": {worker.end}")
                yield {"workload": name, "verified": False, "error": worker.end}


class _Worker:
    """A process whose lines are read as they come; it is killed with its children when late."""

    def __init__(self, command: Sequence[str], devices: int) -> None:
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by __exit__
        flags = {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        }
        self.process = subprocess.Popen(
            command,
            env=os.environ | flags,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            start_new_session=True,
        )
        self.late = False
        self.watch = threading.Timer(TIMEOUT, self._kill)
        self.end = "ended without a result"

    def __enter__(self) -> _Worker:
        self.watch.start()
        return self

    def lines(self) -> Iterator[str]:
        """What it writes to stdout."""
        yield from self.process.stdout or ()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.watch.cancel()
        if kind is not None:
            self._kill()
        status = self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.errors.seek(0)
        errors = self.errors.read()
        self.errors.close()
        # mpiexec adds lines of its own about the abort.
        messages = [line.strip() for line in errors.splitlines() if "Error" in line]
        if hung := re.search(r"^Timeout \(.*?^  (File .*?)$", errors, re.DOTALL | re.MULTILINE):
            messages = [f"hung in {hung[1]}"]
        if self.late:
            self.end = f"killed after {TIMEOUT:.0f} s"
        elif status < 0:
            self.end = f"crashed: {signal.Signals(-status).name}"
        elif status:
            self.end = messages[-1] if messages else f"failed with exit status {status}"

    def _kill(self) -> None:
        if self.process.poll() is None:
            self.late = True
            # The whole session: mpiexec has children that would outlive it.
            os.killpg(self.process.pid, signal.SIGKILL)
