"""What `redistrib info` tells: versions, installed backends, devices."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import redistrib as rd
from redistrib.backends.registry import BACKENDS, find_mpiexec

OPTIONAL = ("jax", "jaxlib", "mpi4py", "mpich", "torch", "ml_dtypes", "z3-solver", "click", "rich")


def find_facts() -> Iterator[tuple[str, Any]]:
    """Name and value of each: a text, a list of texts, or None for what is not there."""
    yield "redistrib", rd.__version__
    yield "python", platform.python_version()
    for package in ("numpy", *OPTIONAL):
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            yield package, None
    library = _mpi_library()
    yield "mpi library", library
    yield "mpiexec", find_mpiexec()
    ready = [b.name for b in BACKENDS if b.version() and (b.name != "mpi" or library)]
    yield "backends", ready
    yield "jax devices", _jax_devices()


def _mpi_library() -> str | None:
    # In a process of its own: loading MPI may start daemons, print, or abort on a broken set-up.
    code = (
        "import mpi4py; mpi4py.rc.initialize = False; "
        "from mpi4py import MPI; print(MPI.Get_library_version().split(chr(10))[0])"
    )
    return _ask_python(code)


def _jax_devices() -> list[str] | None:
    devices = _ask_python("import jax; print(*jax.devices(), sep=chr(10))")
    return None if devices is None else devices.split("\n")


def _ask_python(code: str) -> str | None:
    command = [sys.executable, "-c", code]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (subprocess.SubprocessError, OSError):
        return None
    return answer.stdout.strip() or None
