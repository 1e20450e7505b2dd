"""`redistrib run`, `calibrate`, `demo` and `info` with torch, and the examples, where torch is."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from redistrib.synth.plan.profile import Profile
from tests.torch.pool import PYTHON, ROOT

EXAMPLES = {
    "ddp_torch.py": "all three agree",
    "placements_torch.py": "our_cost: 0 detours are cheaper than the direct way",
}


def output(*arguments: str) -> str:
    result = subprocess.run(
        [str(PYTHON), *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,  # for what takes a few seconds on a quiet machine
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def test_run() -> None:
    problem = ("--mesh", "x=2,y=2", "bf16[64{x}, 32{y}]", "bf16[64{y}, 32{x}]")
    answer = json.loads(
        output("-m", "redistrib", "run", *problem, "--backend", "torch", "--format", "json")
    )
    assert answer["backend"] == "torch"
    assert answer["verified"] is True


def test_calibrate() -> None:
    few = ("--mesh", "x=2", "--moves", "16", "--rounds", "2")
    text = output("-m", "redistrib", "calibrate", "--backend", "torch", *few)
    profile = Profile.from_toml(text)
    assert "16 moves of tiles up to 4" in profile.source
    assert 1e6 < profile.link.bandwidth < 1e12


def test_demo_and_info() -> None:
    rows = json.loads(output("-m", "redistrib", "demo", "--backend", "torch", "--format", "json"))
    assert rows
    assert all(row["backend"] == "torch" and row["verified"] for row in rows)
    assert "torch" in output("-m", "redistrib", "info")


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples(name: str) -> None:
    assert EXAMPLES[name] in output(f"examples/{name}")
