"""A pytest plugin: writes down what failed first, and what it was that noticed.

Used as `-p tests.mutants.witness` with the path to write to in MUTANT_WITNESS. Hypothesis draws the
same examples every time and does not shrink: that something fails is enough.
"""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import hypothesis
import pytest

from redistrib.errors import CheckError, LayoutError

MAX_MEMORY = 4 << 30  # bytes: a bug that allocates without end fails instead of the machine


def pytest_configure() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
    hypothesis.settings.register_profile(
        "mutants", phases=phases, derandomize=True, database=None, deadline=None
    )
    hypothesis.settings.load_profile("mutants")


def pytest_exception_interact(
    node: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport
) -> None:
    path = Path(os.environ["MUTANT_WITNESS"])
    if call.excinfo is None or path.exists():
        return
    lines = str(call.excinfo.value).splitlines() or [""]
    found = {
        "by": _noticed_by(node.nodeid, call.excinfo),
        "test": node.nodeid,
        "reason": f"{call.excinfo.typename}: {lines[0]}",
    }
    path.write_text(json.dumps(found), encoding="utf-8")


def _noticed_by(test: str, error: pytest.ExceptionInfo[BaseException]) -> str:
    """`proof` where z3 refuses a claim or a plan, `checker` where the checker does, `types` where a
    type or a typing rule does; else `test`."""
    if isinstance(error.value, CheckError):
        raised_in = {*Path(error.traceback[-1].path).with_suffix("").parts}
        for module, by in (("certificate", "proof"), ("checker", "checker")):
            if module in raised_in:
                return by
    if isinstance(error.value, LayoutError):
        return "types"
    of_proofs = test.startswith("tests/proofs/test_proofs.py::")
    return "proof" if of_proofs and isinstance(error.value, AssertionError) else "test"
