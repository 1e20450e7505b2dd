"""Whatever is given to whole models, the answer is a RedistribError, at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import redistrib as rd
from redistrib.backends.simulator.models import run_model, scatter_model
from redistrib.cli.commands import program
from redistrib.errors import InfeasibleError, RedistribError, WeightMapError
from redistrib.models import expression
from redistrib.models.expression import Expression, Over, concat, source
from redistrib.models.inverse import inverse
from redistrib.models.names import Affine

# Anything may be given to these here.
anything: Callable[[Any], Any] = lambda given: given  # noqa: E731
stack: Any = expression.stack
pad: Any = expression.pad
rearrange: Any = expression.rearrange
weight_map: Any = rd.WeightMap
segmented: Any = rd.SegmentedType

MESH = rd.Mesh(x=2)
TYPE = ("f32[4{x}]", MESH)
BAD: tuple[Any, ...] = (3, None, "abc", [1], {3: 4}, {"a": 3}, {"a": None}, {"a": ((-1,), "f32")})


BAD_OPTIONS: dict[str, list[Any]] = {
    "memory_budget": ["x", "", -1, 1.5, float("nan"), True, []],
    "weights": ["a = a", 3, [], {}],
    "relabel": ["no", 3, None],
    "keep_sources": ["no", None],
    "into_targets": ["no", None],
    "least_part": [0, -1, "a", 1.5, None, True],
    "device_of": [3, "ab", [(0, 1)], {1: "a"}, {"a": 2}, {0: 5, 1: 5}],
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(
    "call",
    [
        lambda bad: rd.plan_model(bad, {"a": TYPE}),
        lambda bad: rd.plan_model({"a": TYPE}, bad),
        lambda bad: rd.trace(lambda get: {"t": get("a")}, bad),
        lambda bad: rd.WeightMap.parse("t = a").shapes(bad),
        lambda bad: inverse(rd.WeightMap.parse("t = a"), bad),
        lambda bad: run_model(rd.plan_model({"a": TYPE}, {"a": TYPE}), bad),
        lambda bad: scatter_model(bad, {"b": rd.ArrayType.parse(*TYPE)}),
        rd.SegmentedType.parse,
    ],
)
def test_arguments_of_the_wrong_kind(call: Callable[..., object], bad: Any) -> None:
    with pytest.raises(RedistribError):
        call(bad, MESH) if call == rd.SegmentedType.parse else call(bad)


@pytest.mark.parametrize(
    ("option", "bad"),
    [(option, bad) for option, values in BAD_OPTIONS.items() for bad in values],
)
def test_options_of_a_plan(option: str, bad: Any) -> None:
    with pytest.raises(RedistribError):
        rd.plan_model({"a": TYPE}, {"a": TYPE}, **{option: bad})


def test_a_budget_is_a_number_or_a_text() -> None:
    plan = rd.plan_model({"a": TYPE}, {"a": TYPE}, memory_budget="1GiB")
    assert plan.memory_budget == 1 << 30
    with pytest.raises(InfeasibleError, match="the memory budget is 2"):
        rd.plan_model({"a": TYPE}, {"a": TYPE}, memory_budget="2 B")


@pytest.mark.parametrize(
    "text",
    [
        "a.{i} = b[{i}] for {i} in 0:1000000000",
        "a.{i}.{j} = b for {i} in 0:100000, {j} in 0:100000",
        "a = stack(0, {e} in 0:1000000000: b.{e})",
        "a = stack(0, {e} in 0:1000: stack(0, {f} in 0:1000: b.{e}.{f}))",
        "a = b" + "[0]" * 5000,
        "a = " + "concat(0, " * 5000 + "b" + ")" * 5000,
        "a.{i} = b for {i} in 0:3, {i} in 0:2",
        "a = b.{i*" + "9" * 5000 + "}",
        "a.{i} = b[{i+" + "9" * 5000 + "}]",
        "a.{i}.{j} = b{i}{j}",
        "a.{i}.{j} = b{i}0{j}",
        "a{i}{j} = b.{i}.{j}",
    ],
)
def test_maps_without_a_bound_or_one_meaning(text: str) -> None:
    with pytest.raises(WeightMapError, match="line 1, column"):
        rd.WeightMap.parse(text)


def doubled(times: int) -> Expression:
    made: Expression = source("a")
    for _ in range(times):
        made = concat(0, made, made)
    return made


@pytest.mark.parametrize(
    "make",
    [
        lambda: doubled(60),
        lambda: doubled(5000),
        lambda: stack(0, source("a.{e}"), over=("e", 0, 10**9)),
        lambda: stack(0, source("a"), over=("e", 5, 2)),
        lambda: stack(0, source("a"), over=3),
        lambda: Over("e e", 0, 2),
        lambda: Affine("i", 0),
        lambda: source("a\nb"),
        lambda: source(""),
        lambda: pad(source("a"), 0, "x"),
        lambda: pad(source("a"), 0, 1.5),
        lambda: rearrange(source("a"), "a -> a", a=None),
        lambda: source("a")[10**5000],
        lambda: list(anything(source("a"))),
        lambda: weight_map(3),
        lambda: weight_map({"x": 3}),
        lambda: weight_map({3: source("a")}),
    ],
)
def test_expressions(make: Callable[[], object]) -> None:
    with pytest.raises(WeightMapError):
        make()


def test_targets_have_a_bound() -> None:
    w = rd.WeightMap.parse("x.{i}.{j} = concat(0, b.{i}, c.{j})")
    names = [f"{kind}.{n}" for kind in "bc" for n in range(1000)]
    with pytest.raises(WeightMapError, match="at most 262144 targets; got 1000000"):
        w.targets(names)
    assert rd.WeightMap.parse("x.{i} = b.{i}").targets(["b." + "9" * 5000]) == {}


@pytest.mark.parametrize(
    ("text", "array"),
    [
        ("x = pad(a, 0, 100000000000000)", np.zeros(3)),
        ('x = rearrange(a, "1 -> ' + "1 " * 80 + '")', np.zeros(1)),
        ("x = a", [[1], [2, 3]]),
    ],
)
def test_what_numpy_does_not_make(text: str, array: Any) -> None:
    with pytest.raises(WeightMapError, match="numpy does not make"):
        rd.WeightMap.parse(text)({"a": array})


@pytest.mark.parametrize(
    "load",
    [
        3,
        lambda get: None,
        lambda get: {3: get("a")},
        lambda get: {"x{i}": get("a")},  # in the text of the map a placeholder
        lambda get: {"": get("a")},
        lambda get: {"x": get([])},
        lambda get: {"x": np.moveaxis(get("a"), [0, 1], [1, 0])},
        lambda get: {"x": np.concatenate([get("a")], dtype="f2")},
        lambda get: {"x": get("a").astype("f2", casting="safe")},
    ],
)
def test_loading_functions(load: Any) -> None:
    with pytest.raises(WeightMapError):
        rd.trace(load, {"a": ((4, 6), "f32")})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dst", []),
        ("least_part", 0),
        ("device_of", [[0, 0], [0, 1]]),
        ("device_of", [[0, 1], [1, 1]]),
        ("src", [{"type": "f32[4|", "mesh": 0, "names": ["a"]}]),
        ("meshes", [{"axes": [["x", 2]], "devices": "2:0"}]),
        ("weights", "a = stack(0, {e} in 0:1000000000: a.{e})"),
    ],
)
def test_plans_as_json(key: str, value: Any) -> None:
    data = json.loads(rd.plan_model({"a": TYPE}, {"a": TYPE}).to_json())
    with pytest.raises(RedistribError):
        rd.ModelPlan.from_json(json.dumps({**data, key: value}))


def test_segments() -> None:
    t = rd.ArrayType.parse(*TYPE)
    for parts, dim in ((3, 0), ((3,), 0), ((t,), "x"), ((t,), 0.0), ((t, t), 1)):
        with pytest.raises(RedistribError):
            segmented(parts, dim)
    with pytest.raises(RedistribError):
        rd.SegmentedType.parse("f32[4|4|]", MESH)
    assert hash(segmented([t], 0)) == hash(segmented((t,), 0))


def test_nothing_to_make() -> None:
    for keep in (True, False):
        plan = rd.plan_model({"a": TYPE}, {}, keep_sources=keep)
        assert (plan.received_bytes, plan.unused_sources) == (0, ("a",))
        rd.check(plan)
        assert rd.ModelPlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("device", [[], None, "0", 9, True])
def test_devices_of_a_schedule(device: Any) -> None:
    with pytest.raises(RedistribError):
        rd.plan_model({"a": TYPE}, {"a": TYPE}).schedule(device)


MODEL = '[mesh.m]\naxes={x=2}\ndevices="0:2"\n[[array]]\nname="a"\ntype="f32[4{x}]"\nmesh="m"\n'


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe",
        b"mesh=3",
        b"array=3",
        b"array=[3]",
        b"a=" + b"[" * 20000,
        MODEL.replace("0:2", "2:0").encode(),
        MODEL.replace("0:2", "\u0660:\u0662").encode(),
        MODEL.replace('"a"', '"a{i}"\nrepeat="5:2"').encode(),
        MODEL.replace('"a"', '"a{i}"\nrepeat="0:999999999"').encode(),
        MODEL.replace("4{x}", "4|").encode(),
    ],
)
def test_files_of_the_command(tmp_path: Path, text: bytes) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text(MODEL)
    bad.write_bytes(text)
    maps = [(good, good, "--weights", bad)] if text == b"\xff\xfe" else []
    for names in ((bad, good), (good, bad), *maps):
        result = CliRunner().invoke(program, ["model", *map(str, names)])
        assert isinstance(result.exception, SystemExit)
        assert result.exit_code != 0
        assert result.output.startswith("redistrib: ")


def test_descriptors_have_a_bound() -> None:
    there = rd.Mesh({}, devices=[5])
    plan = rd.plan_model(
        {"w": ("f32[2048, 2048]", rd.Mesh(x=1))},
        {"t": ("f32[2048, 2048]", there)},
        weights=rd.WeightMap.parse('t = rearrange(w, "a b -> b a")'),
    )
    with pytest.raises(RedistribError, match="at most 1048576 contiguous descriptors"):
        plan.schedule(0).to_nixl()
    (entry,) = json.loads(plan.schedule(0).to_json())["transfers"]
    assert entry["counts"] == [2048, 2048]
