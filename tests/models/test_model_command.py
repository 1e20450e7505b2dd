"""`redistrib model`, and `redistrib check` of what it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from redistrib.cli.commands import program
from redistrib.cli.model import m2n_lines
from redistrib.models.model_plan import plan_model
from redistrib.models.weight_map import WeightMap
from redistrib.types.mesh import Mesh

TRAIN = """
[mesh.train]
axes = {dp = 2, tp = 2}
devices = "0:4"

[[array]]
name = "l.{i}.q"
repeat = "0:3"
type = "f32[16{tp}, 8]"
mesh = "train"

[[array]]
name = "l.{i}.kv"
repeat = "0:3"
type = "f32[8{tp}, 8]"
mesh = "train"
"""
SERVE = """
[mesh.serve]
axes = {tp = 4}
devices = [4, 5, 6, 7]

[[array]]
name = "l.{i}.qkv"
repeat = "0:3"
type = "bf16[16{tp}|8{tp}, 8]"
mesh = "serve"
"""
WEIGHTS = "l.{i}.qkv = cast(concat(0, l.{i}.q, l.{i}.kv), bf16)\n"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "src.toml").write_text(TRAIN)
    (tmp_path / "dst.toml").write_text(SERVE)
    (tmp_path / "map").write_text(WEIGHTS)
    return tmp_path


def redistrib(*arguments: object) -> Result:
    return CliRunner().invoke(program, [str(argument) for argument in arguments])


def model(files: Path, *more: object) -> Result:
    return redistrib(
        "model", files / "src.toml", files / "dst.toml", "--weights", files / "map", *more
    )


def test_a_model_is_planned(files: Path) -> None:
    result = model(files)
    assert result.exit_code == 0
    assert result.stdout.startswith("3 arrays from 6, 8 devices\n  received   288 bytes")


def test_arrays_are_given_in_any_notation(files: Path) -> None:
    stated = model(files).stdout
    other = TRAIN.replace('"f32[16{tp}, 8]"', "\"P('tp')\"\nshape = [16, 8]\ndtype = 'f32'")
    other = other.replace('"f32[8{tp}, 8]"', '"[R, S(0)]"\nshape = "8,8"\ndtype = "float32"')
    assert "P('tp')" in other
    assert "S(0)" in other
    (files / "src.toml").write_text(other)
    assert model(files).stdout == stated
    (files / "src.toml").write_text(other.replace("shape = [16, 8]", ""))
    refused = model(files)
    assert refused.exit_code == 2
    assert "array l.{i}.q: a layout in the notation partition-spec does not" in refused.stderr


def test_the_json_of_a_plan_is_checked(files: Path) -> None:
    result = model(files, "--format", "json")
    plan = files / "plan.json"
    plan.write_text(result.stdout)
    checked = redistrib("check", plan)
    assert checked.exit_code == 0
    assert checked.stdout.startswith("3 arrays on 8 devices: correct\n")
    data = json.loads(result.stdout)
    plan.write_text(json.dumps({**data, "sent_bytes": 5}))
    refused = redistrib("check", plan)
    assert refused.exit_code in (1, 2)
    assert "sent_bytes of the model plan is" in refused.stderr


def test_the_page_of_a_model_is_printed(files: Path) -> None:
    result = model(files, "--format", "html")
    assert result.exit_code == 0
    assert result.stdout.startswith("<!doctype html>")


@pytest.mark.parametrize("form", ["json", "nixl"])
def test_schedules_are_written_for_every_device(files: Path, form: str) -> None:
    result = model(files, "--schedule", files / "out", "--schedule-format", form)
    assert result.exit_code == 0
    written = sorted((files / "out").iterdir())
    assert [file.name for file in written] == [f"device-{n}.json" for n in range(8)]
    assert all(json.loads(file.read_text())["transfers"] for file in written)


def test_what_m2n_takes_is_said_array_by_array(files: Path) -> None:
    (files / "dst.toml").write_text(
        SERVE
        + """
[[array]]
name = "l.0.q"
type = "f32[16, 8{tp}]"
mesh = "serve"
"""
    )
    model(files, "--schedule", files / "out", "--schedule-format", "m2n")
    lines = (files / "out/m2n.txt").read_text().splitlines()
    assert "l.0.q: f32[16{tp}, 8] -> f32[16, 8{tp}]" in lines
    assert "l.0.qkv: not legal: bf16[16{tp}|8{tp}, 8] is in segments" in lines


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("src.toml", "16{tp}", "15{tp}", "array l.{i}.q: "),
        ("src.toml", "16{tp}", "16{pp}", "pp"),
        ("src.toml", 'mesh = "train"', 'mesh = "tarin"', "known: train"),
        ("src.toml", '"0:4"', '"0:"', "devices are"),
        ("src.toml", '"0:4"', "[0, 1, 2]", "4"),
        ("src.toml", "repeat", "repeats", "an array has the keys"),
        ("src.toml", 'repeat = "0:3"', "", "has repeat"),
        ("src.toml", "axes = {dp = 2, tp = 2}", "", "has axes"),
        ("src.toml", "[mesh.train]", "[mesh.train", "src.toml"),
        ("map", "concat", "conact", "line 1, column"),
        ("map", "bf16", "f16", "has dtype bf16; the map makes f16"),
        ("map", "l.{i}.kv", "l.{i}.vk", "nothing makes the target l.0.qkv"),
    ],
)
def test_bad_input_is_one_line(files: Path, file: str, old: str, new: str, message: str) -> None:
    path = files / file
    path.write_text(path.read_text().replace(old, new, 1))
    result = model(files)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_too_small_a_budget_is_a_no(files: Path) -> None:
    result = model(files, "--budget", "100")
    assert result.exit_code == 1
    assert "the memory budget is 100" in result.stderr


@pytest.mark.parametrize(
    ("source", "target", "rule", "why"),
    [
        ("f32[4{x}, 8]", "f32[4, 8{y}]", "w", ""),
        ("f32[4{x}, 8]", "f32[8, 4{y}]", 'rearrange(w, "a b -> b a")', "is other than w"),
        ("f32[4{x}, 4]", "f32[4, 4{y}]", 'rearrange(w, "a b -> b a")', "is other than w"),
        ("f32[8, 4{x}]", "f32[4, 4{y}]", "w[0:4]", "is other than w"),
        ("f32[8, 4{x}]", "f32[4, 4{y}]", "w[0:8:2]", "is other than w"),
        ("f32[8, 4{x}]", "bf16[8, 4{y}]", "cast(w, bf16)", "is other than w"),
        ("f32[8, 4{x}]", "f32[32]", 'rearrange(w, "a b -> (a b)")', "is other than w"),
        ("f32[1{x}:ceil, 4]", "f32[1{y}:ceil, 4]", "w", "is uneven"),
    ],
)
def test_m2n_takes_arrays_as_they_are(source: str, target: str, rule: str, why: str) -> None:
    here, there = Mesh(x=2), Mesh({"y": 2}, devices=[2, 3])
    weights = WeightMap.parse(f"t = {rule}")
    (line,) = m2n_lines(plan_model({"w": (source, here)}, {"t": (target, there)}, weights=weights))
    assert (why in line) if why else line == f"t: {source} -> {target}"
    assert ("not legal" in line) == bool(why)
