"""The backends there are: whether one is installed, its version, how a plan is run on it.

A backend is a module with `run_array(plan, array)`: the array split as the source, redistributed
and put together from the target. Written as the `Primitives` of a tile program, in
`redistrib.synth.plan.tile_program`, it needs little more; an entry here then makes it known to
`redistrib run`, `demo` and `info`.

>>> [backend.name for backend in BACKENDS]
['simulator', 'jax', 'mpi', 'torch']
>>> simulator = find_backend("simulator")
>>> simulator.missing() is None, simulator.processes
(True, <Processes.THIS: 'this process'>)
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import shutil
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from redistrib.errors import BackendError


class Processes(Enum):
    """Where the devices of a plan are, as a backend runs it."""

    THIS = "this process"
    """All in the process that asks, which may run any number of plans."""
    OWN = "a process of its own"
    """All in one that is started for it, or in its children: their number is known at the start."""
    RANKS = "a process per device"
    """One in each process that mpiexec starts; all of them ask."""


@dataclass(frozen=True, slots=True)
class Backend:
    """A backend of the package.

    module: where it is, with `run_array`; one that runs in this process has `run` and `measure`
        too, as the simulator. package: the distribution that it needs. extras: what pip installs it
        with, "" for none.
    """

    name: str
    module: str
    package: str
    extras: str
    processes: Processes

    def version(self) -> str | None:
        """The version of the package that it needs; None where that is not installed."""
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return None

    def missing(self) -> str | None:
        """Why it cannot run on this machine; None if it can."""
        if importlib.util.find_spec(self.package) is None:
            return f"not installed: pip install 'redistrib[{self.extras}]'"
        if self.processes is Processes.RANKS and find_mpiexec() is None:
            return f"not installed: no mpiexec: pip install 'redistrib[{self.extras}]'"
        return None

    def load(self) -> Any:
        """Its module. Raises BackendError where it, or the MPI below it, is missing."""
        try:
            return importlib.import_module(self.module)
        except (ImportError, RuntimeError) as error:  # mpi4py without an MPI raises the latter
            hint = ""
            if self.processes is Processes.RANKS:
                hint = "; leave mpich out where the machine has an MPI"
            raise BackendError(
                f"the backend {self.name} is not installed: "
                f"pip install 'redistrib[{self.extras}]'{hint} ({error})",
                backend=self.name,
            ) from error


_PATH = "redistrib.backends"
BACKENDS = (
    Backend("simulator", f"{_PATH}.simulator", "numpy", "", Processes.THIS),
    Backend("jax", f"{_PATH}.jax", "jax", "jax", Processes.OWN),
    Backend("mpi", f"{_PATH}.mpi", "mpi4py", "mpi,mpich", Processes.RANKS),
    Backend("torch", f"{_PATH}.torch", "torch", "torch", Processes.OWN),
)


def find_backend(name: str) -> Backend:
    """The backend of this name. Raises BackendError for any other, with those there are."""
    for backend in BACKENDS:
        if backend.name == name:
            return backend
    known = ", ".join(backend.name for backend in BACKENDS)
    raise BackendError(f"the backends are {known}; got {name}", backend=name)


def find_mpiexec() -> str | None:
    """The mpiexec beside this python, or else on the path."""
    beside = Path(sys.executable).parent / "mpiexec"
    return str(beside) if beside.exists() else shutil.which("mpiexec")
