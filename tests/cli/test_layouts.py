"""Layouts in any notation on the command line: plan, explain, convert, cost; help and spelling."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click.testing
import pytest

import redistrib as rd
from redistrib.cli.commands import program
from redistrib.report.plan_text import COLUMNS

SRC, DST = "f32[64{x}, 32{y}]", "f32[64{y}, 32{x}]"
MESH = ["--mesh", "x=2,y=4"]
WHY_NOT = "XLA compiled where both ends are on one mesh"
ARRAY = ["--shape", "64,32", "--dtype", "f32"]
OTHERS = (
    ("P('x', 'y')", "P('y', 'x')"),
    ("{devices=[2,4]<=[8]}", "{devices=[4,2]<=[2,4]T(1,0)}"),
    ('#sdy.sharding<@mesh, [{"x"}, {"y"}]>', '#sdy.sharding<@mesh, [{"y"}, {"x"}]>'),
    ("[Shard(dim=0), Shard(dim=1)]", "[Shard(dim=1), Shard(dim=0)]"),
)


def invoke(*arguments: str, stdin: str | None = None) -> click.testing.Result:
    return click.testing.CliRunner().invoke(program, arguments, input=stdin)


def done(*arguments: str, stdin: str | None = None) -> str:
    result = invoke(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize(("src", "dst"), OTHERS)
def test_other_notations_give_the_same_plan(src: str, dst: str) -> None:
    expected = done("plan", *MESH, SRC, DST, "--format", "json")
    assert done("plan", *MESH, *ARRAY, src, dst, "--format", "json") == expected
    # One end that states the array is enough.
    assert done("plan", *MESH, SRC, dst, "--format", "json") == expected
    assert done("plan", *MESH, src, DST, "--format", "json") == expected
    question = {"mesh": "x=2,y=4", "src": src, "dst": dst, "shape": [64, 32], "dtype": "f32"}
    answer = json.loads(done("cost", stdin=json.dumps(question)))
    assert answer["received_bytes"] == json.loads(expected)["received_bytes"]


def test_what_no_layout_states_must_be_given() -> None:
    result = invoke("plan", *MESH, "P('x')", "P('y')")
    assert result.exit_code == 2
    assert "give shape and dtype beside" in result.stderr
    assert result.stderr.count("\n") == 1
    for shape in ("x", "1,,2", "-1", "1e3"):
        result = invoke("plan", *MESH, "P('x')", "P('y')", "--shape", shape, "--dtype", "f32")
        assert result.exit_code == 2
        assert "a shape is written as 4096,1024" in result.stderr


def test_explain_shows_every_alternative(tmp_path: Path) -> None:
    mesh = rd.Mesh(x=2, y=4)
    found = rd.explain(rd.ArrayType.parse(SRC, mesh), rd.ArrayType.parse(DST, mesh))
    assert done("explain", *MESH, SRC, DST) == f"{found}\n"
    page = tmp_path / "page.html"
    assert done("explain", *MESH, SRC, DST, "--format", "html", "-o", str(page)) == ""
    assert all(name in page.read_text() for name, _ in found.alternatives)
    assert invoke("explain", *MESH, SRC, DST, "--strategy", "direct").exit_code == 2


def test_convert() -> None:
    assert done("convert", *MESH, "--to", "dtensor", SRC) == "[Shard(dim=0), Shard(dim=1)]\n"
    assert done("convert", *MESH, *ARRAY, "--to", "redistrib", "P('x', 'y')") == f"{SRC}\n"
    assert done("convert", *MESH, *ARRAY, "--from", "hlo", "--to", "redistrib", OTHERS[1][0])
    everything = done("convert", *MESH, "f32[64{y:(1)2}, 32]").splitlines()
    assert "partition-spec  no word for it" in everything
    assert invoke("convert", *MESH, "--to", "dtensor", "f32[8{y:(1)2}]").exit_code == 2


def test_a_command_that_is_spelled_nearly_right() -> None:
    result = invoke("pln", *MESH, SRC, DST)
    assert result.exit_code == 2
    assert "no command 'pln'; did you mean 'plan'?" in result.stderr
    assert result.stderr.count("\n") == 1
    assert "known:" in invoke("zzz").stderr


@pytest.mark.parametrize("command", sorted(program.commands))
def test_help_fits_a_terminal_and_has_examples(command: str) -> None:
    if command in ("prove", "bench"):  # passed on
        return
    lines = done(command, "--help").splitlines()
    assert max(map(len, "\n".join(lines).partition("Examples:")[0].splitlines())) <= 80
    if command in ("plan", "run", "explain", "convert", "serve"):
        assert "Examples:" in "\n".join(lines)


def test_explain_shows_what_xla_does_by_itself() -> None:
    """It gathers the whole array for the pair of jax#21562."""
    ends = "f32[128{y}, 128, 128{x}]", "f32[128, 128{x,y}, 128]"
    page = done("explain", "--mesh", "x=4,y=2", *ends, "--xla", "--format", "html")
    assert re.search(r"<td[^>]*>XLA</td>.*7340032 bytes received, largest array 8388608", page)
    other = done("explain", "--mesh", "x=2", "--dst-mesh", "y=2", "f32[8{x}]", "f32[8]", "--xla")
    assert " ".join(other.splitlines()[-1].split()) == WHY_NOT


def test_without_arguments_there_is_help() -> None:
    assert done() == done("--help")
    assert "_REDISTRIB_COMPLETE" in done()


def test_completion_knows_the_commands() -> None:
    environment = {
        **os.environ,
        "_REDISTRIB_COMPLETE": "bash_complete",
        "COMP_WORDS": "redistrib conv",
        "COMP_CWORD": "1",
    }
    run = subprocess.run(
        [sys.executable, "-m", "redistrib"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout == "plain,convert\n"


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_narrow_terminal_loses_no_column(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from redistrib.report.plan_text import print_rich, rows

    monkeypatch.setenv("COLUMNS", str(width))
    mesh = rd.Mesh(x=2, y=4)
    plan = rd.plan(
        rd.ArrayType.parse("f32[4096{x}, 4096{y}]", mesh),
        rd.ArrayType.parse("f32[4096{y}, 4096{x}]", mesh),
        strategy="collectives",
    )
    print_rich(plan)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= width
    steps = shown[shown.index("source  ") if width > 40 else shown.index("0 source") :]
    assert all(cell in steps for row in rows(plan) for cell in row)
    assert all(name in shown for name in COLUMNS[1:])
    assert "\x1b" not in shown
