"""Bad input: one line on stderr that says what is legal, nothing on stdout, status 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click.testing
import numpy as np
import pytest

from redistrib.cli import commands

MESH = ("--mesh", "x=2,y=4")
GOOD = ("f32[8{x}]", "f32[8]")

# what is wrong -> (arguments, fragments of the message)
CASES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "unknown axis": (
        ("plan", *MESH, "f32[8{q}]", "f32[8]"),
        ("unknown axis 'q'", "x, y"),
    ),
    "axis used twice": (
        ("plan", *MESH, "f32[8{x}, 8{x}]", "f32[8, 8]"),
        ("an axis is used once", "x"),
    ),
    "indivisible dimension": (
        ("plan", *MESH, "f32[9{x}]", "f32[9]"),
        ("9{x}", "nearest legal sizes: 8 and 10"),
    ),
    "shapes differ": (
        ("plan", *MESH, "f32[8{x}]", "f32[16]"),
        ("one shape", "[8]", "[16]"),
    ),
    "dtypes differ": (
        ("plan", *MESH, "f32[8{x}]", "f64[8]"),
        ("one dtype", "f32", "f64"),
    ),
    "malformed type": (
        ("plan", *MESH, "f32[8{x]", "f32[8]"),
        ("column 8", "']'", "f32[8{x]"),
    ),
    "truncated type": (
        ("plan", *MESH, "f32[8{x}", "f32[8]"),
        ("column 9", "the end of the text", "f32[8{x}"),
    ),
    "unknown dtype": (("plan", *MESH, "q32[8]", "f32[8]"), ("q32", "f32", "bf16")),
    "malformed mesh": (
        ("plan", "--mesh", "x=2,y:4", *GOOD),
        ("column 5", "NAME=SIZE", "y:4"),
    ),
    "size of an axis": (("plan", "--mesh", "x=0", *GOOD), ("positive", "x=0")),
    "axis named twice": (("plan", "--mesh", "x=2,x=2", *GOOD), ("distinct", "'x'")),
    "malformed target mesh": (("plan", *MESH, "--dst-mesh", "x", *GOOD), ("NAME=SIZE", "'x'")),
    "unknown strategy": (
        ("plan", *MESH, *GOOD, "--strategy", "fast"),
        ("'fast'", "auto", "collectives", "direct", "exact"),
    ),
    "empty strategy": (("plan", *MESH, *GOOD, "--strategy", ""), ("''", "auto", "direct")),
    "digits of another script": (("plan", *MESH, "f32[\uff18]", "f32[8]"), ("column 5", "\uff18")),
    "a size of another script": (("plan", "--mesh", "x=\uff12", *GOOD), ("NAME=SIZE", "\uff12")),
    "a dimension below its factors": (
        ("plan", *MESH, "f32[8{_16}]", "f32[8]"),
        ("8{_16}", "nearest legal size: 16\n"),
    ),
    "meshes of too many positions": (
        ("plan", "--mesh", "x=1000000000", "--dst-mesh", "y=2", "f32[8]", "f32[8{y}]"),
        ("at most 262144", "got 1000000000"),
    ),
    "too many positions where no digits match": (
        ("plan", "--mesh", "x=6000000", "f32[12000000{x}]", "f32[12000000{_2,x}]"),
        ("at most 1048576", "got 6000000"),
    ),
    "malformed limit": (
        ("plan", *MESH, *GOOD, "--memory-limit", "12 apples"),
        ("'12 apples'", "GiB"),
    ),
    "negative limit": (("plan", *MESH, *GOOD, "--memory-limit=-1"), ("'-1'", "GiB")),
    "a misspelt profile": (
        ("plan", *MESH, *GOOD, "--profile", "dgx-h10"),
        ("'dgx-h10', did you mean 'dgx-h100'?",),
    ),
    "more memory than there is": (
        ("run", "--mesh", "x=2", "f32[1048576{x}, 1048576]", "f32[1048576, 1048576{x}]"),
        ("about 24 TiB of memory", "the tiles of 2 devices", "are available", "redistrib plan"),
    ),
    "unknown profile": (("plan", *MESH, *GOOD, "--profile", "nowhere"), ("nowhere", "default")),
    "unknown format": (("plan", *MESH, *GOOD, "--format", "xml"), ("'xml'", "'json'")),
    "unknown backend": (
        ("run", *MESH, *GOOD, "--backend", "cuda"),
        ("'cuda'", "'simulator'", "'jax'", "'mpi'"),
    ),
    "unknown option": (("plan", *MESH, *GOOD, "--fast"), ("--fast",)),
    "no mesh": (("plan", *GOOD), ("--mesh",)),
    "no target": (("plan", *MESH, GOOD[0]), ("DST",)),
    "three types": (("plan", *MESH, *GOOD, GOOD[0]), ("unexpected", GOOD[0])),
    "unknown command": (("redistribute",), ("redistribute",)),
    "no repetitions": (("run", *MESH, *GOOD, "--repeat", "0"), ("0", "x>=1")),
    "no such plan": (("check", "missing.json"), ("missing.json", "No such file")),
    "no such input": (("run", *MESH, *GOOD, "--input", "missing.npy"), ("missing.npy", "No such")),
    "no such directory": (("plan", *MESH, *GOOD, "-o", "no/such"), ("no/such", "No such file")),
    "an extra argument": (("info", "now"), ("now",)),
}


def check_refusal(stdout: str, stderr: str, status: int, fragments: tuple[str, ...]) -> None:
    assert (stdout, status) == ("", 2)
    assert stderr.startswith("redistrib")
    assert stderr.endswith("\n")
    assert stderr.count("\n") == 1, stderr
    for fragment in fragments:
        assert fragment in stderr, (fragment, stderr)


def refuse(*arguments: str, fragments: tuple[str, ...]) -> None:
    result = click.testing.CliRunner().invoke(commands.program, arguments, prog_name="redistrib")
    check_refusal(result.stdout, result.stderr, result.exit_code, fragments)


@pytest.mark.parametrize("case", CASES)
def test_bad_input_in_process(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, fragments = CASES[case]
    refuse(*arguments, fragments=fragments)


@pytest.mark.parametrize("case", ["malformed type", "unknown axis", "unknown option"])
def test_bad_input_as_a_process(case: str) -> None:
    arguments, fragments = CASES[case]
    command = [sys.executable, "-m", "redistrib", *arguments]
    used = subprocess.run(command, capture_output=True, text=True, check=False)
    check_refusal(used.stdout, used.stderr, used.returncode, fragments)


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("", ("JSON", "line 1")),
        ('{"format": "redistrib-plan/2", "str', ("JSON", "line 1")),
        ("[]", ("redistrib-plan/2", "list")),
        ("{}", ("redistrib-plan/2", "None")),
        ('{"format": "other/2"}', ("redistrib-plan/2", "other/2")),
        ("[" * 100_000, ("JSON",)),
        ("\x00", ("JSON",)),
    ],
)
def test_a_file_that_is_no_plan(text: str, fragments: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    refuse("check", str(path), fragments=fragments)


def test_a_plan_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(b"\xff\xfe\x00")
    refuse("check", str(path), fragments=("JSON", str(path)))


@pytest.mark.parametrize(
    ("array", "fragments"),
    [
        (np.zeros(9, np.float32), ("[8] float32", "[9] float32")),
        (np.zeros(8, np.float64), ("[8] float32", "[8] float64")),
        (np.array([None] * 8), (".npy",)),
    ],
)
def test_an_input_that_does_not_fit(
    array: np.ndarray, fragments: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "a.npy"
    np.save(path, array, allow_pickle=True)
    refuse("run", *MESH, *GOOD, "--input", str(path), fragments=fragments)


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY\x01\x00"])
def test_an_input_that_is_no_array(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    refuse("run", *MESH, *GOOD, "--input", str(path), fragments=(".npy",))


def test_an_input_that_is_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, a=np.zeros(8, np.float32))
    refuse("run", *MESH, *GOOD, "--input", str(path), fragments=(".npy", "magic"))
