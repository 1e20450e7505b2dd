"""Other libraries that some figures need, in this environment or in that of `make bench-peers`.

Whatever is not there is named as such in the results; nothing is measured in its place.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENVIRONMENT = ROOT / ".venv-peers"
NOT_MEASURED = "Not measured: "
"""Begins a line of a benchmark that names the libraries it had to leave out."""


def find_python(modules: Sequence[str], option: str | None = None) -> str | None:
    """A Python that has all of these modules: the one that is named, this one, or the peers'."""
    peers = ENVIRONMENT / "bin" / "python"
    candidates = [option] if option else [sys.executable, *([str(peers)] if peers.exists() else [])]
    return next((python for python in candidates if _has(python, tuple(modules))), None)


@cache
def _has(python: str, modules: tuple[str, ...]) -> bool:
    if python == sys.executable:
        with suppress(ModuleNotFoundError):  # of a.b without a
            return all(importlib.util.find_spec(module) for module in modules)
        return False
    code = "import sys, importlib.util as u; sys.exit(not all(map(u.find_spec, sys.argv[1:])))"
    answer = subprocess.run([python, "-c", code, *modules], capture_output=True, check=False)
    return answer.returncode == 0


def packages() -> str | None:
    """Where the peers' environment has its packages."""
    return next(map(str, ENVIRONMENT.glob("lib/python*/site-packages")), None)
