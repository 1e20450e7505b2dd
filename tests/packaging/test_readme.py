"""The examples of the README and of docs run, and the README names commands that exist."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

from redistrib.cli.commands import program

README = Path(__file__).parents[2] / "README.md"


def test_the_examples_run() -> None:
    failed, tried = doctest.testfile(str(README), module_relative=False)
    assert tried > 8
    assert failed == 0


def test_the_examples_of_the_notations_run() -> None:
    failed, tried = doctest.testfile(str(README.parent / "docs/interop.md"), module_relative=False)
    assert tried > 5
    assert failed == 0


def test_the_commands_exist() -> None:
    named = set(re.findall(r"^    redistrib (\w+)", README.read_text(), re.MULTILINE))
    assert named
    assert named <= set(program.commands)
