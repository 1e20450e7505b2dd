"""Every shell and Python block of the README and of docs runs; what they name exists.

Blocks with `>>>` are doctests. A block that begins with `# NAME.py` is a file that a shell line of
the page runs. The other Python blocks of a page are one program, run as pasted: under two MPI ranks
where it imports mpi4py. Shell lines begin with the name of a program; a line below `$ redistrib` is
what it prints, or for `cost` what it is asked.
"""

from __future__ import annotations

import configparser
import doctest
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click.testing
import pytest

from redistrib.cli.commands import program
from tests.torch.pool import PYTHON as TORCH

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
FILE = re.compile(r"# ([a-z_0-9]+\.py)\n")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SYNTAX = re.compile(r"[|]|\b[A-Z]{3,}\b")
"""What is to be filled in: alternatives, and names in capitals."""
SHELL = re.compile(
    r"^ {4}(?:\$ )?((?:redistrib|pip|make|python|mpiexec|torchrun) .*)$", re.MULTILINE
)


def blocks(page: Path, *, prompts: bool) -> list[str]:
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [block for block in found if (">>>" in block) == prompts and not FILE.match(block)]


def files(page: Path) -> dict[str, str]:
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return {name[1]: block for block in found if (name := FILE.match(block))}


def commands(page: Path) -> list[list[str]]:
    lines = SHELL.findall(page.read_text(encoding="utf-8"))
    return [shlex.split(line, comments=True) for line in lines]


def pages(test: str) -> list[str]:
    """The pages that have something to test."""
    wanted = {
        "doctests": lambda page: blocks(page, prompts=True),
        "programs": lambda page: blocks(page, prompts=False),
        "commands": commands,
    }[test]
    return [page.name for page in PAGES if wanted(page)]


def path(name: str) -> Path:
    return next(page for page in PAGES if page.name == name)


@pytest.mark.parametrize("name", pages("doctests"))
def test_the_examples_run(name: str) -> None:
    failed, tried = doctest.testfile(
        str(path(name)),
        module_relative=False,
        optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE,
    )
    assert tried
    assert failed == 0


@pytest.mark.parametrize("name", pages("programs"))
def test_the_programs_run_as_pasted(name: str, tmp_path: Path) -> None:
    text = "\n".join(blocks(path(name), prompts=False))
    script = tmp_path / "pasted.py"
    script.write_text(text, encoding="utf-8")
    command = [sys.executable, str(script)]
    if "mpi4py" in text:
        mpiexec = str(Path(sys.executable).with_name("mpiexec"))
        command = [mpiexec, "-n", "2", sys.executable, "-m", "mpi4py", str(script)]
    run = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert run.returncode == 0, run.stderr[-3000:]


@pytest.mark.parametrize("name", pages("commands"))
def test_the_commands_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = set(config["options.extras_require"])
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for text in re.findall(r"^```toml\n(mesh = .*?)^```$", path(name).read_text(), re.M | re.S):
        (tmp_path / "program.toml").write_text(text)
    for file, text in files(path(name)).items():
        (tmp_path / file).write_text(text)
    ran: set[str] = set()
    for command in commands(path(name)):
        match command:
            case (
                ["python", file]
                | ["mpiexec", "-n", _, "python", file]
                | ["torchrun", "--nproc-per-node", _, file]
            ) if file in files(path(name)):
                ran.add(file)
                run_file(command)
            case ["make", target]:
                assert target in targets
            case ["pip", "install", package]:
                (named,) = re.findall(r"\[(.*)\]", package)
                assert set(named.split(",")) <= extras, package
            case ["redistrib", subcommand, *words] if SYNTAX.search(" ".join(words)):
                options = {option for p in program.commands[subcommand].params for option in p.opts}
                assert {word for word in words if word.startswith("-")} <= options, command
            case ["mpiexec", "-n", ranks, *arguments]:
                mpiexec = str(Path(sys.executable).with_name("mpiexec"))
                start = [mpiexec, "-n", ranks, sys.executable, "-m"]
                run = subprocess.run(
                    [*start, *arguments], capture_output=True, text=True, check=False, timeout=300
                )
                assert run.returncode == 0, (command, run.stderr)
            case ["redistrib", "cost" | "lint" | "bench" | "prove" as subcommand, *_]:
                assert subcommand in program.commands  # run below, or for hours
            case ["redistrib", *arguments]:
                result = click.testing.CliRunner().invoke(program, arguments)
                assert result.exit_code == 0, (command, result.output)
            case ["python", script] if "/" in script:
                assert (ROOT / script).exists()
            case ["python", "-m", module, *_]:
                assert (ROOT / module.replace(".", "/")).exists() or (
                    ROOT / f"{module.replace('.', '/')}.py"
                ).exists()
            case _:
                assert Path(sys.executable).with_name(command[0]).exists(), command
    assert ran == set(files(path(name)))


def run_file(command: list[str]) -> None:
    """Run a file of a page, which prints that all is well: True and no False."""
    beside = Path(sys.executable)
    programs = {
        "python": beside,
        "mpiexec": beside.with_name("mpiexec"),
        "torchrun": TORCH.with_name("torchrun"),
    }
    line = [str(programs.get(word, word)) for word in command]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        line, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert "True" in run.stdout
    assert "False" not in run.stdout


def test_lint_and_cost_print_what_the_page_says(tmp_path: Path) -> None:
    text = (ROOT / "docs/oracle.md").read_text(encoding="utf-8")
    (program_text,) = re.findall(r"^```toml\n(mesh = .*?)^```$", text, re.M | re.S)
    (tmp_path / "program.toml").write_text(program_text)
    (said,) = re.findall(r"^    \$ redistrib lint program.toml\n    (.*)$", text, re.M)
    lines = re.findall(r"^    (\{.*\})$", text, re.M)  # questions, each before its answer
    for command, stdin, printed in (
        ("lint program.toml", "", said),
        ("cost", "\n".join(lines[::2]), "\n".join(lines[1::2])),
    ):
        run = subprocess.run(
            [sys.executable, "-m", "redistrib", *command.split()],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT)},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.stdout.strip() == printed
