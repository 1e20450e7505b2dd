"""The main job: one run of everything, and its table and failures on their own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import redistrib as rd
from redistrib import demo
from redistrib.backends.registry import BACKENDS
from redistrib.demo.table import format_table
from redistrib.demo.workloads import WORKLOADS, array_of, source_tile
from redistrib.types.tile import same_bits

ROOT = Path(__file__).parents[2]
Row = dict[str, Any]


@pytest.fixture(scope="module")
def run() -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "redistrib", "demo", "--format", "json"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def rows(run: subprocess.CompletedProcess[str]) -> list[Row]:
    assert run.returncode == 0, run.stderr
    found: list[Row] = json.loads(run.stdout)
    return found


def test_every_workload_is_verified_on_every_backend(rows: list[Row]) -> None:
    assert {(row["workload"], row["backend"]) for row in rows} == {
        (workload.name, backend.name)
        for workload in WORKLOADS
        for backend in BACKENDS
        if backend.version()
    }
    assert [row for row in rows if row["verified"] is not True] == []
    assert len(WORKLOADS) >= 8


def test_progress_is_on_stderr(run: subprocess.CompletedProcess[str]) -> None:
    for line in (
        "demo: simulator 1/13: jax#21562",
        "demo: jax 13/13: FSDP gradient",
        "demo: mpi, 8 ranks 1/6: jax#21562",
        "demo: XLA 10/13: tensor rotation: crashed: SIGFPE",
    ):
        assert line in run.stderr.splitlines()


def test_what_is_received_is_what_was_planned(rows: list[Row]) -> None:
    for row in rows:
        bound, planned = row["lower_bound_bytes"], row["planned_received_bytes"]
        match row["backend"]:
            case "simulator":
                assert row["received_bytes"] == planned
            case "mpi":  # one fused exchange, whatever the plan
                assert row["received_bytes"] == bound
                assert row["num_collectives"] == 1
            case _:  # rounds of unequal pieces may be padded
                assert bound <= row["received_bytes"] <= 1.5 * planned


def test_no_more_than_xla(rows: list[Row]) -> None:
    for row in rows:
        xla = row["xla"]
        if row["backend"] == "jax" and xla.get("expressible"):
            assert row["received_bytes"] <= xla["received_bytes"]
            assert row["largest_buffer_bytes"] <= xla["largest_buffer_bytes"]
    crashed = {row["workload"] for row in rows if "error" in row["xla"]}
    assert crashed == {"tensor rotation"}


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_addends_make_up_the_array(workload: demo.Workload) -> None:
    src, dst = workload.types()
    assert (src.shape, src.dtype, src.mesh) == (dst.shape, dst.dtype, dst.mesh)
    assert src != dst
    assert src.mesh.num_devices <= 16
    array = array_of(src)
    tiles = [source_tile(array, src, position) for position in range(src.mesh.num_devices)]
    assert all(tile.shape == src.tile_shape for tile in tiles)
    if src.partial:
        whole = sum(tiles[1:], start=tiles[0].copy())
        assert same_bits(whole, array)
        assert all(tile.any() for tile in tiles)
    # Shifting the array by a row of any dimension is seen.
    for dim in (d for d, n in enumerate(array.shape) if n > 1):
        assert not np.array_equal(array, np.roll(array, 1, dim))


def planned() -> list[tuple[demo.Workload, rd.Plan]]:
    chosen = [WORKLOADS[0], WORKLOADS[3], WORKLOADS[10]]
    return [(workload, rd.plan(*workload.types())) for workload in chosen]


def row(name: str, backend: str, **figures: Any) -> Row:
    return {"workload": name, "backend": backend, "verified": True, "error": None, **figures}


def test_the_table_shows_figures_crashes_and_what_is_missing() -> None:
    plans = planned()
    names = [workload.name for workload, _ in plans]
    rows = [row(name, "jax", received_bytes=3 << 20, num_collectives=7) for name in names]
    baseline = {
        names[0]: {"expressible": True, "received_bytes": 5 << 20, "num_collectives": 2},
        names[1]: {"error": "crashed: SIGFPE"},
        names[2]: {"expressible": False},
    }
    text = format_table(plans, rows, baseline, {"mpi": "not installed: reason"})
    lines = text.splitlines()
    table = {name: " ".join(x for x in lines if x.startswith(f"{name} ")) for name in names}
    assert "3.00" in table[names[0]]
    assert "5.00" in table[names[0]]
    assert table[names[1]].count("crash") == 4
    assert table[names[2]].split()[-4:] == ["-", "yes", "-", "-"]
    assert "mpi: not installed: reason" in text
    assert "every tile is right, bit for bit: 20 tiles of 3 runs" in text
    for workload, found in plans:
        assert f"{found.src} -> {found.dst} on {workload.mesh}" in text
        assert workload.source in text


def test_the_table_names_what_failed() -> None:
    plans = planned()[:1]
    name = plans[0][0].name
    rows = [
        row(name, "jax", verified=False),
        row(name, "mpi", verified=False, error="killed after 180 s"),
    ]
    text = format_table(plans, rows, {}, {})
    assert f"FAILED: {name} on jax: a device holds wrong data" in text
    assert f"FAILED: {name} on mpi: killed after 180 s" in text
    assert any(x.split()[-4:] == ["-", "NO", "NO", "-"] for x in text.splitlines())
    assert "every tile is right" not in text


@pytest.mark.parametrize("error", [None, "crashed: SIGFPE", "exit status 3"])
def test_the_tables_fit_a_terminal(error: str | None) -> None:
    """With every workload, the largest figures, and whatever goes wrong."""
    plans = [(workload, rd.plan(*workload.types())) for workload in WORKLOADS]
    keys = ("received_bytes", "temp_bytes", "largest_buffer_bytes")
    figures = {"error": error, **dict.fromkeys(keys, 99 << 20), "num_collectives": 99}
    rows = [row(w.name, b.name, verified=not error) | figures for w, _ in plans for b in BACKENDS]
    text = format_table(plans, rows, {w.name: figures for w, _ in plans}, {})
    tables = text.partition("received: ")[0]
    assert max(map(len, tables.splitlines())) <= 80
    names = {"workload", "devices", "bound", "XLA", *(b.name for b in BACKENDS)}
    groups = ("received MiB", "temp MiB", "buffer MiB", "collectives", "right on")
    assert names <= set(tables.split())
    assert all(group in tables for group in groups)


@pytest.mark.parametrize(
    ("code", "end"),
    [
        ("raise ValueError('no such layout')", "ValueError: no such layout"),
        ("import sys; sys.exit(3)", "failed with exit status 3"),
        ("import os; os.abort()", "crashed: SIGABRT"),
        ("pass", "ended without a result"),
    ],
)
def test_a_failing_worker_costs_one_workload_at_a_time(code: str, end: str) -> None:
    jobs, command = demo._jobs(planned()[:2]), [sys.executable, "-c", code]
    found = list(demo._run_worker("jax", jobs, command, "test"))
    assert [row["error"] for row in found] == [end, end]
    assert not any(row["verified"] for row in found)


def test_a_worker_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "TIMEOUT", 0.5)
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    (found,) = demo._run_worker("jax", demo._jobs(planned()[:1]), command, "test")
    assert found["error"].startswith("killed after")


def test_unknown_backends_are_refused() -> None:
    with pytest.raises(rd.BackendError, match="are simulator, jax, mpi, torch; got cuda"):
        demo.run_demo(["cuda"])


def test_it_is_no_success_if_nothing_that_was_asked_for_can_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "mpi4py" else find_spec(name)
    )
    with pytest.raises(rd.BackendError, match=r"can run here: mpi: not installed: pip install"):
        demo.run_demo(["mpi"])


def test_with_numpy_alone_the_simulator_runs_and_the_rest_is_reported(tmp_path: Path) -> None:
    (tmp_path / "redistrib").symlink_to(ROOT / "redistrib")
    site = Path(np.__file__).parents[1]
    for name in ("numpy", "numpy.libs"):
        if (site / name).exists():
            (tmp_path / name).symlink_to(site / name)
    code = (
        "import sys\n"
        "from redistrib import demo\n"
        "shown = [w for w in demo.WORKLOADS if w.name in ('jax#21562', 'Ulysses attention')]\n"
        "demo.WORKLOADS = tuple(shown)\n"
        "sys.exit(demo.run_demo())\n"
    )
    result = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert "jax: not installed: pip install 'redistrib[jax]'" in result.stdout
    assert "mpi: not installed: pip install 'redistrib[mpi,mpich]'" in result.stdout
    assert "Ulysses attention: dtype bf16 needs the package ml_dtypes" in result.stdout
    assert "every tile is right" in result.stdout
