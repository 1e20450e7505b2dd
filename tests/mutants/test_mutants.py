"""The table of mutants fits the code, and its run tells what is caught from what is not."""

from __future__ import annotations

import ast
import builtins
from pathlib import Path
from textwrap import dedent

import pytest

from tests.mutants import __main__ as command
from tests.mutants.mutant import Mutant, faults, load
from tests.mutants.runner import ROOT, BaselineError, Verdict, kill_suite, run_mutants, run_suite
from tests.mutants.syntax import CHOSEN
from tests.repetitions import repetitions

DIGITS = "redistrib/types/digits.py"
RIGHT = "all(b % a == 0 for a, b in pairwise(cuts))"
CAUGHT = Mutant("caught", DIGITS, "is_chain", RIGHT, "all(b > a for a, b in pairwise(cuts))")
SURVIVES = Mutant("survives", DIGITS, "is_chain", "b % a == 0", "not b % a")
HANGS = Mutant("hangs", DIGITS, "primes", "p += 1", "p += 0")


def test_every_snippet_stands_once_in_its_file() -> None:
    assert faults(load(), ROOT) == []
    assert len(load()) >= 60


def test_every_file_of_the_table_has_a_kill_suite() -> None:
    for file in {mutant.place(ROOT) for mutant in load()}:
        for test in kill_suite(file):
            path, _, name = test.partition("::")
            name = name.partition("[")[0]
            assert (ROOT / path).exists()
            assert not name or f"def {name}(" in (ROOT / path).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("mutant", "fault"),
    [
        (Mutant("gone", DIGITS, "is_chain", "no == 1", ""), "has the snippet 0 times"),
        (Mutant("several", DIGITS, "primes", "n", "p"), "times in redistrib"),
        (Mutant("same", DIGITS, "is_chain", RIGHT, RIGHT), "changes nothing"),
        (Mutant("broken", DIGITS, "is_chain", RIGHT, "("), "was never closed"),
        (Mutant("nowhere", "redistrib/none.py", "none", "a", "b"), "has the snippet nowhere"),
        (Mutant("unknown", DIGITS, "is_chain", "b % a == 0", "b % c == 0"), "names c"),
        (Mutant("more", DIGITS, "primes", "p = 2", "if 0: ..."), "that it does not replace"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(mutant: Mutant, fault: str) -> None:
    (found,) = faults([mutant], ROOT)
    assert found.startswith(f"{mutant.name}: ")
    assert fault in found
    assert faults([CAUGHT, CAUGHT], ROOT) == ["caught: 2 mutants have this name"]


class Renamed(ast.NodeTransformer):
    """Gives every variable of a function another name."""

    def __init__(self) -> None:
        self.local: set[str] = set()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        outer = self.local
        if not outer:
            inside = [n for top in (node.args, *node.body) for n in ast.walk(top)]
            functions = {n.name for n in inside if isinstance(n, ast.FunctionDef)}
            names = {getattr(n, CHOSEN[type(n)]) for n in inside if binds(n)}
            names = names - functions - {*dir(builtins), None}
            self.local = {name for name in names if not name.endswith("_new")}
        self.generic_visit(node)
        self.local = outer
        return node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        chosen = CHOSEN.get(type(node), "")
        name = getattr(node, chosen, None)
        if name in self.local:
            setattr(node, chosen, f"{name}_new")
        return super().generic_visit(node)


def binds(node: ast.AST) -> bool:
    read = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    return type(node) in CHOSEN and not read


def renamed(text: str) -> str:
    return ast.unparse(Renamed().visit(ast.parse(text))) + "\n"


def test_new_names_of_variables_and_a_move_break_no_mutant(tmp_path: Path) -> None:
    """The bug is the same after every local variable has a new name and every module moves."""
    written = ""
    for mutant in load()[:: repetitions(4, 1)]:
        file, here = mutant.changed(ROOT)
        moved = tmp_path / Path(mutant.file).parts[0] / "elsewhere.py"
        if file != written:
            moved.parent.mkdir(exist_ok=True)
            moved.write_text(renamed((ROOT / file).read_text(encoding="utf-8")), encoding="utf-8")
            written = file
        found, there = mutant.changed(tmp_path)
        assert found == moved.relative_to(tmp_path).as_posix(), mutant.name
        # What replaces the snippet may bind names of its own.
        assert renamed(ast.unparse(there)) == renamed(ast.unparse(here)), mutant.name


SOURCE = """
import sys

LIMITS = {"a": 1, "b": 2}

def widest(rows, least=0):
    def cells(row):
        return [cell for cell in row if cell]
    for row in rows:
        least = max(least, len(cells(row)))
    for number in rows:
        sys.exit(number)
    match rows:
        case [first] if first:
            return first
        case [first, *_]:
            return LIMITS[first]
    return least
"""


@pytest.mark.parametrize(
    ("scope", "old", "new", "wanted"),
    [
        ("widest", "max(least, len(cells(row)))", "len(cells(row))", "least = len(cells(row))"),
        ("widest", "max(c, len(f(r)))", "c + len(f(r))", "least = least + len(cells(row))"),
        ("widest.cells", "[x for x in y if x]", "y", "        return row\n"),
        ("LIMITS", "{'b': 2, 'a': 1}", "{}", None),
        ("LIMITS", "{'a': 1, 'b': 2}", "{}", "LIMITS = {}\n"),
        (
            "widest",
            "for n in rows: sys.exit(n)",
            "",
            "least = max(least, len(cells(row)))\n    match",
        ),
        (
            "widest",
            "for n in x: sys.exit(n)",
            "for n in x[1:]: sys.exit(n)",
            "in rows[1:]:\n        sys",
        ),
        ("widest", "for n in x: ...", "for n in x[1:]: ...", None),
        (
            "widest",
            "match x:\n    case [a, *_]: ...",
            "match x:\n    case [*_, a]: ...",
            "case [first] if first:\n            return first\n        case [*_, first]:",
        ),
        ("widest", "os.exit(number)", "number", None),
        ("widest", "sys.exit(rows)", "rows", "rows"),
        ("widest", "max(x, len(y(x)))", "x", None),
    ],
)
def test_a_snippet_matches_up_to_the_names_of_variables(
    scope: str, old: str, new: str, wanted: str | None, tmp_path: Path
) -> None:
    (tmp_path / "redistrib").mkdir()
    (tmp_path / "redistrib/module.py").write_text(dedent(SOURCE), encoding="utf-8")
    mutant = Mutant("bug", "redistrib/module.py", scope, old, new)
    if wanted is None:
        with pytest.raises(ValueError, match=r"has the snippet \d times"):
            mutant.source(tmp_path)
    else:
        assert wanted in mutant.source(tmp_path)


BELOW_DIGITS = ("redistrib/errors.py", "redistrib/text.py")
"""What the module imports."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree of one module and its doctests."""
    for directory in ("redistrib/types", "proofs", "tests/mutants", "docs", "examples"):
        (tmp_path / directory).mkdir(parents=True)
    for name in (DIGITS, *BELOW_DIGITS, "tests/mutants/witness.py", "pyproject.toml"):
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
    row = command.recorded()[CAUGHT.name]
    assert f" | `{DIGITS}` | test | " in row
    assert command.placed(row.replace(DIGITS, "before/it_moved.py", 1), DIGITS) == row


def test_a_mutant_that_hangs_is_stopped(tree: Path) -> None:
    (tree / DIGITS).write_text(HANGS.source(tree), encoding="utf-8")
    assert run_suite(tree, [DIGITS], timeout=3) == ("timeout", "still running after 3 s")


def test_a_tree_that_fails_as_it_is_catches_nothing(tree: Path) -> None:
    (tree / DIGITS).write_text(CAUGHT.source(tree), encoding="utf-8")
    wrong = Mutant("late", DIGITS, "primes", "p += 1", "p += 2")
    with pytest.raises(BaselineError, match="without any mutant"):
        run_mutants([wrong], 1, print, tree, lambda file: [file])
