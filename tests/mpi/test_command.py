"""`run --backend mpi` and `calibrate --backend mpi`, on real ranks."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

import redistrib as rd
from redistrib.cli.progress import progress
from redistrib.demo.launch import MPICH, OPENMPI, Installation, kill, start
from redistrib.synth.plan.profile import Profile


def output(
    ranks: int, *arguments: str, status: int = 0, mpi: Installation = MPICH
) -> tuple[str, str]:
    """Stdout and stderr of a command on so many ranks."""
    job = start(mpi, ranks, "-m", "redistrib", *arguments)
    try:
        out, errors = job.communicate(timeout=120)
    finally:
        kill(job)
    assert job.returncode == status, errors
    return out, errors


def test_run_reports_time_speed_and_memory_of_the_worst_rank(tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((1024, 512), np.float32)
    source, target = tmp_path / "a.npy", tmp_path / "b.npy"
    np.save(source, array)
    problem = ("--mesh", "x=4", "f32[1024{x}, 512]", "f32[1024, 512{x}]")
    options = ("--backend", "mpi", "--repeat", "3", "--input", str(source), "--output", str(target))
    out, _ = output(4, "run", *problem, *options, "--format", "json")
    answer = json.loads(out)
    assert answer["verified"]
    assert np.array_equal(np.load(target), array)
    assert len(answer["seconds"]) == 3
    assert answer["rank_received_bytes"] == answer["received_bytes"] == array.nbytes * 3 // 16
    speed = answer["rank_received_bytes"] / sorted(answer["seconds"])[1] / 1e9
    assert answer["gigabytes_per_second"] == pytest.approx(speed)
    # Far below the 2 MiB that MPICH takes for requests when the redistribution is made.
    assert answer["rank_extra_bytes"] <= 0.1 * array.nbytes / 4 + (1 << 20)
    assert answer["rank_peak_bytes"] > answer["rank_extra_bytes"]
    out, _ = output(4, "run", *problem, "--backend", "mpi")
    assert "mpi: every element is right" in out
    assert "mpi: fused into communicating phases: 1; a rank receives" in out
    assert "GB/s; its memory peaks at" in out


@pytest.mark.parametrize(
    ("mpi", "mesh", "dst_mesh"),
    [(MPICH, "x=4", "u=2"), (OPENMPI, "x=2", "u=4")],
    ids=("to fewer on mpich", "to more on openmpi"),
)
def test_run_between_meshes_of_two_sizes(mpi: Installation, mesh: str, dst_mesh: str) -> None:
    problem = ("--mesh", mesh, "--dst-mesh", dst_mesh, "f32[64{x}, 64]", "f32[64, 64{u}]")
    out, _ = output(4, "run", *problem, "--backend", "mpi", "--format", "json", mpi=mpi)
    assert json.loads(out)["verified"]


def test_a_calibrated_profile_prices_plans(tmp_path: Path) -> None:
    path = tmp_path / "here.toml"
    few = ("--moves", "16", "--rounds", "2")
    output(4, "calibrate", "--backend", "mpi", "--mesh", "x=2,y=2", *few, "-o", str(path))
    profile = Profile.load(path)
    assert profile.exchange == "call"
    assert "16 moves of tiles up to 4" in profile.source
    for link in (profile.link, *(level.link for level in profile.levels)):
        assert 0 <= link.latency < 1
        assert 1e6 < link.bandwidth < 1e12
    mesh = rd.Mesh(x=2, y=2)
    src, dst = (rd.ArrayType.parse(t, mesh) for t in ("f32[2048{x}, 2048]", "f32[2048, 2048{x}]"))
    assert rd.cost(src, dst, profile=str(path)).seconds > 1e-7


def test_calibrate_needs_one_rank_for_each_position() -> None:
    _, errors = output(2, "calibrate", "--backend", "mpi", "--mesh", "x=4", status=2)
    assert "one for each position; got a mesh of 4 and 2 ranks" in errors


def test_what_takes_long_says_so_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("mpi: running", every=0.05):
        time.sleep(0.3)
    out, errors = capsys.readouterr()
    assert out == ""
    assert errors.startswith("mpi: running: 0 s\n")


def test_one_rank_says_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PMI_RANK", "1")
    with progress("mpi: running", every=0.05):
        time.sleep(0.2)
    assert capsys.readouterr().err == ""
