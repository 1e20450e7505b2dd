"""The table of mutants fits the code, and its run tells what is caught from what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants import __main__ as command
from tests.mutants.mutant import Mutant, faults, load
from tests.mutants.runner import ROOT, BaselineError, Verdict, kill_suite, run_mutants, run_suite

DIGITS = "redistrib/types/digits.py"
RIGHT = "all(b % a == 0 for a, b in pairwise(cuts))"
CAUGHT = Mutant("caught", DIGITS, RIGHT, "all(b > a for a, b in pairwise(cuts))")
SURVIVES = Mutant("survives", DIGITS, RIGHT, "all(not b % a for a, b in pairwise(cuts))")
HANGS = Mutant("hangs", DIGITS, "    p = 2\n    while p", "    p = 2\n    while True or p")


def test_every_snippet_stands_once_in_its_file() -> None:
    assert faults(load(), ROOT) == []
    assert len(load()) >= 60


def test_every_file_of_the_table_has_a_kill_suite() -> None:
    for file in {mutant.file for mutant in load()}:
        for test in kill_suite(file):
            path, _, name = test.partition("::")
            name = name.partition("[")[0]
            assert (ROOT / path).exists()
            assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8") or not name


@pytest.mark.parametrize(
    ("mutant", "fault"),
    [
        (Mutant("gone", DIGITS, "no such text", ""), "has the snippet 0 times"),
        (Mutant("several", DIGITS, "return", "yield"), "times, not once"),
        (Mutant("same", DIGITS, RIGHT, RIGHT), "changes nothing"),
        (Mutant("broken", DIGITS, RIGHT, "("), "was never closed"),
        (Mutant("nowhere", "redistrib/none.py", "a", "b"), "No such file"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(mutant: Mutant, fault: str) -> None:
    (found,) = faults([mutant], ROOT)
    assert found.startswith(f"{mutant.name}: ")
    assert fault in found
    assert faults([CAUGHT, CAUGHT], ROOT) == ["caught: 2 mutants have this name"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree of one module and its doctests."""
    for directory in ("redistrib/types", "proofs", "tests/mutants", "docs"):
        (tmp_path / directory).mkdir(parents=True)
    for name in (DIGITS, "redistrib/errors.py", "tests/mutants/witness.py", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    for directory in ("redistrib", "redistrib/types", "tests", "tests/mutants"):
        (tmp_path / directory / "__init__.py").touch()
    return tmp_path


def test_what_is_caught_and_what_survives_is_told_and_recorded(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "RESULTS", tree / "RESULTS.md")
    verdicts: list[Verdict] = []

    def run(mutants: list[Mutant], workers: int, report: object) -> list[Verdict]:
        verdicts[:] = run_mutants(mutants, workers, report, tree, lambda file: [file])
        return verdicts

    monkeypatch.setattr(command, "run_mutants", run)
    monkeypatch.setattr(command, "load", lambda: (CAUGHT, SURVIVES))
    assert command.main(["--workers", "1", "--record"]) == 1
    assert [v.by for v in verdicts] == ["test", None]
    assert "digits.py::redistrib.types.digits.is_chain: " in verdicts[0].witness
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("SURVIVED") and "survives" in line for line in lines)
    assert lines[-2:] == ["caught: 1 by test", "2 mutants, 1 killed, 1 survived"]
    assert (tree / DIGITS).read_text(encoding="utf-8") == (ROOT / DIGITS).read_text(
        encoding="utf-8"
    )
    assert command.main(["--workers", "1", "--only", "caught"]) == 0

    page = (tree / "RESULTS.md").read_text(encoding="utf-8")
    assert page.startswith(command.HEADER)
    assert page.endswith("2 mutants, 1 killed, 1 survived\n")
    assert command.page([*command.recorded().values()]) == page


def test_a_mutant_that_hangs_is_stopped(tree: Path) -> None:
    (tree / DIGITS).write_text(HANGS.source(tree), encoding="utf-8")
    assert run_suite(tree, [DIGITS], timeout=3) == ("timeout", "still running after 3 s")


def test_a_tree_that_fails_as_it_is_catches_nothing(tree: Path) -> None:
    (tree / DIGITS).write_text(CAUGHT.source(tree), encoding="utf-8")
    wrong = Mutant("late", DIGITS, "p += 1", "p += 2")
    with pytest.raises(BaselineError, match="without any mutant"):
        run_mutants([wrong], 1, print, tree, lambda file: [file])
