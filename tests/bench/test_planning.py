"""The planning benchmark runs from end to end on a few pairs, and its JSON has its parts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = {"collectives", "auto", "direct"}
SHARDY = {"Shardy", "Shardy, text out"}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, str]:
    """The JSON and the page of a run with one pair per table row, without torch."""
    path = tmp_path_factory.mktemp("bench") / "planning.json"
    command = [sys.executable, "-m", "bench.planning", "--quick", "--pairs", "1"]
    run = subprocess.run(
        [*command, "--json", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(path.read_text()), run.stdout


def test_every_planner_is_timed_on_every_pair(result: tuple[dict, str]) -> None:
    figures, _ = result
    assert len(figures["pairs"]) == 3  # one per mesh
    for row in figures["pairs"]:
        assert set(row["cpu_us"]) >= OURS | SHARDY
        assert all(row[clock][n] > 0 for clock in ("cpu_us", "wall_us") for n in OURS | SHARDY)
    assert {row["class"] for row in figures["peers"]} >= {"all"}
    assert set(figures["back_to_back"]["cpu_us"]) == OURS | SHARDY


def test_sizes_and_axes_reach_their_ends(result: tuple[dict, str]) -> None:
    figures, _ = result
    assert {8, 16, 65_536} <= {row["devices"] for row in figures["sizes"]}
    assert [len(row["mesh"]) for row in figures["axes"]] == [*range(1, 13), 12]
    assert figures["axes"][-1]["devices"] == 65_536
    for row in (*figures["sizes"], *figures["axes"]):
        assert set(row["cpu_us"]) >= OURS | {"price"}
        for spread in row["cpu_us"].values():
            assert 0 < spread["q1"] <= spread["median"] <= spread["q3"] <= spread["max"]


def test_every_target_has_a_verdict(result: tuple[dict, str]) -> None:
    figures, page = result
    for entry in figures["verdicts"]:
        assert f"| {entry['what']} |" in page
        if entry["ratio"] is None:
            assert "DTensor" in entry["what"]
            assert entry["met"] is None
        else:
            assert entry["met"] == (entry["ratio"] <= entry["target"])
    targets = {entry["target"] for entry in figures["verdicts"]}
    assert targets == {5.0, 0.1, 2.0}


def test_an_absent_peer_is_named(result: tuple[dict, str]) -> None:
    figures, page = result
    if figures["versions"]["torch"] == "not installed":
        assert "not installed" in page
    assert {"python", "redistrib", "jaxlib", "torch"} == set(figures["versions"])
    assert {"cpu", "cores", "load", "system"} == set(figures["machine"])
