"""A wheel built from the sources works outside them, with numpy as its only dependency."""

from __future__ import annotations

import configparser
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

import redistrib

ROOT = Path(__file__).parents[2]
SOURCES = (
    *("setup.cfg", "pyproject.toml", "MANIFEST.in", "Makefile", "redistrib", ".ci"),
    *("README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "SECURITY.md"),
    *("bench", "docs", "examples", "proofs", "tests", ".gitignore", ".pre-commit-config.yaml"),
)

USE = """
import numpy as np
import redistrib as rd
from redistrib.backends import simulator
mesh = rd.Mesh(x=2)
src, dst = rd.ArrayType.parse("f32[8{x}]", mesh), rd.ArrayType.parse("f32[8]", mesh)
plan = rd.plan(src, dst)
assert str(plan)
rd.check(plan)
array = np.arange(8, dtype=np.float32)
result = simulator.gather(simulator.run(plan, simulator.scatter(array, src)), dst)
assert np.array_equal(result, array)
print(rd.__file__, rd.__version__, plan.received_bytes)
"""


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `command` in `cwd`, blind to the checkout and to the environment of this process."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    line = [str(part) for part in command]
    return subprocess.run(line, cwd=cwd, env=clean, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel by way of the sdist, so that the sdist is seen to be complete.

    Built from a copy: the checkout may hold a stale build/, and must not get a new one.
    """
    copy = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, copy / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, copy / name)
    # No isolation: the build tools of this environment serve, and no network is needed.
    built = run(sys.executable, "-m", "build", "--no-isolation", cwd=copy)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = (copy / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and numpy in it, and nothing else."""
    home = tmp_path_factory.mktemp("installed")
    made = run(sys.executable, "-m", "venv", "--without-pip", home / "venv", cwd=home)
    assert made.returncode == 0, made.stderr
    python = home / "venv/bin/python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps")
    installed = run(*pip, wheel, cwd=home)
    assert installed.returncode == 0, installed.stderr
    # numpy by link: installing it would need a network, and its whole neighbourhood (the test
    # environment's site-packages) would hide a dependency that the wheel does not declare.
    (target,) = (home / "venv").glob("lib/python*/site-packages")
    origin = Path(np.__file__).parents[1]
    info = f"numpy-{importlib.metadata.version('numpy')}.dist-info"
    for name in ("numpy", "numpy.libs", info):
        if (origin / name).exists():
            (target / name).symlink_to(origin / name)
    return home / "venv"


def test_the_wheel_holds_the_package_and_its_marker(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    modules = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "redistrib").rglob("*.py")
        if "__pycache__" not in file.parts
    }
    data = {"redistrib/py.typed", "redistrib/profiles/dgx-h100.toml", "redistrib/report/style.css"}
    assert data <= names
    assert modules <= names
    assert {name.partition("/")[0] for name in names} == {
        "redistrib",
        f"redistrib-{redistrib.__version__}.dist-info",
    }


def test_the_source_distribution_has_its_tests_and_they_run(wheel: Path, tmp_path: Path) -> None:
    (archive,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    (home,) = tmp_path.iterdir()
    for folder in ("bench", "docs", "examples", "proofs", "tests"):
        held = {str(file.relative_to(home)) for file in (home / folder).rglob("*")}
        kept = {
            str(file.relative_to(ROOT))
            for file in (ROOT / folder).rglob("*")
            if not {"__pycache__", "build"} & {*file.parts} and file.suffix != ".partial"
        }
        assert held == kept
    ran = run(sys.executable, "-m", "pytest", "-q", "tests/packaging/test_site.py", cwd=home)
    assert ran.returncode == 0, ran.stdout[-2000:]


def test_metadata_names_what_the_files_hold() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert config["metadata"]["license"] == "Apache-2.0"
    assert f"version: {redistrib.__version__}" in (ROOT / "CITATION.cff").read_text()
    pinned = (ROOT / ".ci/constraints.txt").read_text().splitlines()
    assert all("==" in line for line in pinned[1:])


def test_the_wheel_requires_numpy_only(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        name = f"redistrib-{redistrib.__version__}.dist-info/METADATA"
        metadata = archive.read(name).decode()
    needed = [
        line.removeprefix("Requires-Dist: ")
        for line in metadata.splitlines()
        if line.startswith("Requires-Dist: ") and "extra ==" not in line
    ]
    assert [name.partition("<")[0].partition(">")[0] for name in needed] == ["numpy"]


def test_the_installed_wheel_plans_and_runs(environment: Path, tmp_path: Path) -> None:
    used = run(environment / "bin/python", "-c", USE, cwd=tmp_path)
    assert used.returncode == 0, used.stderr
    where, version, received = used.stdout.split()
    assert Path(where).is_relative_to(environment)
    assert version == redistrib.__version__
    assert int(received) == 16  # half of 8 float32


def test_the_command_without_its_extra_says_what_to_install(
    environment: Path, tmp_path: Path
) -> None:
    used = run(environment / "bin/redistrib", "info", cwd=tmp_path)
    assert used.returncode == 2
    assert used.stdout == ""
    assert used.stderr.count("\n") == 1
    assert "redistrib[cli]" in used.stderr
