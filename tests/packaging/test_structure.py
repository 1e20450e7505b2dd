"""How large functions and files may be, and that no import runs in a circle or upwards."""

from __future__ import annotations

import ast
from fnmatch import fnmatch

import pytest

from tests.packaging.code import (
    ROOT,
    branches,
    cycles,
    functions,
    import_graph,
    imports,
    length,
    parsed,
)

LINES_OF_FUNCTION = 60
BRANCHES = 25
LINES_OF_FILE = 450

# Parts of the synthesiser: each imports from those before it only.
ORDER = ("redistrib/synth/plan/", "redistrib/synth/planner/", "redistrib/synth/oracle/")
# What may not import what, by paths from the root.
APART = (("bench/*", "tests.*"), ("tests/*", "bench.*"))


def too_large(module: ast.Module) -> list[str]:
    """The functions of a module above a limit, with lines and branches."""
    return [
        name
        for name, function in functions(module)
        if length(function) > LINES_OF_FUNCTION or branches(function) > BRANCHES
    ]


def test_functions_are_short_and_have_few_branches() -> None:
    """At most 60 lines beside the docstring, and 25 decisions."""
    modules = parsed("redistrib")
    assert [f"{path} {name}" for path, m in modules.items() for name in too_large(m)] == []


def test_files_are_short() -> None:
    sizes = {
        path: len((ROOT / path).read_text(encoding="utf-8").splitlines())
        for path in parsed("redistrib")
    }
    assert {path for path, size in sizes.items() if size > LINES_OF_FILE} == set()


def test_no_import_runs_in_a_circle() -> None:
    """Imports inside functions count."""
    assert cycles(import_graph(parsed("redistrib"))) == []


def test_every_module_of_types_opens_with_a_worked_example() -> None:
    modules = parsed("redistrib/types")
    assert len(modules) > 10
    for file, module in modules.items():
        assert file.endswith("__init__.py") or ">>>" in (ast.get_docstring(module) or ""), file


def test_the_synthesiser_imports_downwards() -> None:
    upwards = [
        (path, target)
        for path, targets in import_graph(parsed("redistrib")).items()
        for target in targets
        for rank, part in enumerate(ORDER)
        if path.startswith(part) and target.startswith(ORDER[rank + 1 :])
    ]
    assert upwards == []


def test_benchmarks_and_tests_do_not_import_each_other() -> None:
    """Except that `tests/bench/` tests the benchmarks."""
    modules = {**parsed("tests"), **parsed("bench")}
    meeting = {
        path
        for path, module in modules.items()
        for ours, theirs in APART
        if fnmatch(path, ours) and not path.startswith("tests/bench/")
        if any(fnmatch(name, theirs) for name in imports(module))
    }
    assert meeting == set()


LONG = "def f():\n    '''Said\n    in two lines.'''\n" + "    x = 1\n" * 60
BRANCHED = "class C:\n    def f(self):\n        return " + " or ".join("x" * 27)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        (LONG, ["f"]),
        (LONG.replace("    x = 1\n", "", 1), []),
        (BRANCHED, ["C.f"]),
        (BRANCHED.removesuffix(" or x"), []),
        ("def f():\n    def g():\n" + "        x = [i for i in y if i]\n" * 13, ["f", "f.g"]),
    ],
)
def test_what_is_too_large_is_seen(source: str, names: list[str]) -> None:
    assert too_large(ast.parse(source)) == names


def test_circles_are_seen() -> None:
    sources = {
        "p/__init__.py": "",
        "p/a.py": "def f():\n    from p.b import g",
        "p/b.py": "import p.c",
        "p/c.py": "from p import a",
        "p/d.py": "from p.a import f",
    }
    graph = import_graph({path: ast.parse(source) for path, source in sources.items()})
    assert cycles(graph) == [["p/a.py", "p/b.py", "p/c.py"]]
