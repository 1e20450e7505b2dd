"""Certificates: right plans are proved for all sizes, and no wrong one is."""

from __future__ import annotations

import copy
import json
import random
import sys
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import pytest

import redistrib as rd
from redistrib.backends import simulator
from redistrib.checker.certificate import certify
from redistrib.cli import commands
from redistrib.synth.plan.collectives import CollectivePermute, ReplicatedToPartial
from redistrib.synth.plan.data import make_plan
from redistrib.synth.planner.paper.calculus import PaperType, interpret, prime_system
from redistrib.synth.planner.paper.derivation import lower
from redistrib.synth.planner.paper.normal_form import normal_form
from redistrib.types.digits import parse_device_digit as device
from tests.corruptions import CORRUPTIONS, PLANS, by_hand, planned
from tests.generators import random_pair
from tests.paper.programs import random_program
from tests.problems import (
    array_of,
    expected_tiles,
    random_mesh,
    random_shape,
    random_type,
    random_walk,
)
from tests.repetitions import repetitions

# Corruptions of what a step does; the others change figures, which a certificate does not read.
OF_STEPS = (
    "dropped step",
    "swapped steps",
    "wrong type text",
    "wrong digit",
    "missing or repeated digit",
    "wrong move",
    "wrong route",
    "wrong table source",
    "wrong routing row",
    "wrong reduction",
    "another collective",
)
EVERY = 3  # of the corruptions of a plan, to keep the test short


def reason(data: Any) -> str | None:
    """Why a plan is not proved; None if it is."""
    try:
        certify(data)
    except rd.CheckError as error:
        return str(error)
    return None


def assert_right(plan: rd.Plan, seed: int = 0) -> None:
    """Run a plan: every device ends with the elements that the target type gives it."""
    array = array_of(random.Random(seed), plan.src)
    tiles = simulator.run(plan, simulator.scatter(array, plan.src))
    np.testing.assert_array_equal(simulator.gather(tiles, plan.dst), array)
    if not plan.dst.partial:
        for got, want in zip(tiles, expected_tiles(array, plan.dst), strict=True):
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", [name for name, plan in PLANS.items() if "dst_mesh" not in plan])
def test_right_plans_are_proved_step_by_step(name: str) -> None:
    found = certify(PLANS[name])
    lines = [line for line in found.proved if line.startswith("step ")]
    names = [step["collective"] for step in PLANS[name]["steps"]]
    assert [line.partition(":")[0] for line in lines] == [
        f"step {n}, {collective}" for n, collective in enumerate(names)
    ]
    assert "all sizes" in found.family
    assert certify(json.dumps(PLANS[name])).family == found.family


def test_tables_are_enumerated_and_say_so() -> None:
    assert "by a table, all 24 coordinates enumerated" in str(certify(PLANS["table permute"]))
    exchange = str(certify(PLANS["misaligned exchange"]))
    assert "by their indices, all 36 elements at 6 coordinates enumerated" in exchange


@pytest.mark.parametrize(
    ("mesh", "src", "dst", "family"),
    [
        (
            rd.Mesh(x=2, y=4),
            "f32[64{_2,x}, 64] sum{y}",
            "f32[64, 64{_4,y}]",
            "for all sizes a, b, c, d: f32[2*a*b{_a,x}, 4*c*d] sum{y} -> f32[2*a*b, 4*c*d{_c,y}] "
            "on x=2,y=4",
        ),
        (rd.Mesh(x=6), "i8[12{x}]", "i8[12{_2,x}]", "12*a{x}] -> i8[12*a{_2,x}] on x=6"),
        (rd.Mesh(a=2), "f32[2{a}]", "f32[2]", "for all sizes b: f32[2*b{a}] -> f32[2*b] on a=2"),
        (rd.Mesh(x=2), "f32[]", "f32[]", "f32[] -> f32[] on x=2"),
        (rd.Mesh(x=2), "f32[0, 4{x}]", "f32[0, 4]", "f32[0, 4{x}] -> f32[0, 4]"),
    ],
)
def test_the_family_names_what_is_arbitrary(mesh: rd.Mesh, src: str, dst: str, family: str) -> None:
    for strategy in ("collectives", "direct"):
        assert family in certify(planned(mesh, src, dst, strategy)).family


def test_a_plan_between_two_meshes_has_no_certificate() -> None:
    with pytest.raises(rd.CheckError, match="a certificate is of a plan on one mesh"):
        certify(PLANS["exchange onto another mesh"])


@pytest.mark.parametrize("name", PLANS)
def test_other_sizes_of_the_family_are_right(name: str) -> None:
    plan = rd.Plan.from_json(json.dumps(PLANS[name]))
    src, dst = (
        rd.ArrayType(t.mesh, t.dtype, [n * 3 for n in t.shape], t.dims, t.partial, t.reduction)
        for t in (plan.src, plan.dst)
    )
    assert_right(make_plan(src, dst, "auto", plan.steps))


@pytest.mark.parametrize("seed", range(repetitions(12, 24)))
def test_random_plans_are_proved(seed: int) -> None:
    rng = random.Random(seed)
    if seed % 2:
        src, dst = random_pair(rng.choice)
        for strategy in ("collectives", "direct", "paper"):
            try:
                plan = rd.plan(src, dst, strategy=strategy)
            except rd.InfeasibleError:
                continue
            except rd.LayoutError:
                assert strategy == "paper"  # it cannot express every type
                continue
            certify(plan)
    else:
        mesh = random_mesh(rng)
        start = random_type(rng, mesh, random_shape(rng, mesh), partial=None)
        walk = random_walk(rng, start, 4)
        certify(walk)
        try:
            back = walk.transpose()
        except rd.LayoutError:
            return
        certify(back)


@pytest.mark.parametrize("seed", range(24))
def test_programs_of_the_paper_and_their_normal_forms_are_proved(seed: int) -> None:
    rng = random.Random(seed)
    mesh = rd.Mesh(x=2, y=3, z=2)
    whole = rd.ArrayType(mesh, "f32", [rng.choice((12, 6, 24)) for _ in range(2)])
    start = PaperType.of(whole, prime_system(whole))
    start = interpret(start, random_program(rng, start, 3))[-1]
    program = random_program(rng, start, 6)
    end = str(interpret(start, program)[-1].array_type("f32"))
    for found in (program, normal_form(start, program)):
        types = [t.array_type("f32") for t in interpret(start, found)]
        plan = make_plan(types[0], types[-1], "paper", lower(start, found, "f32"))
        # Whether the plan ends where the program does is left to the certificate.
        certify({**json.loads(plan.to_json()), "dst": end})


def test_what_passes_after_a_corruption_is_still_right() -> None:
    refused = passed = 0
    for name, data in PLANS.items():
        for kind in OF_STEPS:
            for bad in list(CORRUPTIONS[kind](data))[::EVERY]:
                if reason(bad) is not None:
                    refused += 1
                    continue
                passed += 1
                try:
                    plan = rd.Plan.from_json(json.dumps(bad))
                except rd.RedistribError as error:
                    raise AssertionError(f"{kind} of {name} passes: {bad}") from error
                assert_right(plan)
    assert refused > 200
    assert passed < 10


def test_a_wrong_element_is_shown_with_its_device() -> None:
    mesh = rd.Mesh(x=2, y=2)
    data = planned(mesh, "f32[8{x}, 8{y}]", "f32[8, 8{y}]", "collectives")
    wrong = copy.deepcopy(data)
    wrong["src"] = "f32[8{y}, 8{x}]"
    text = reason(wrong)
    assert text is not None
    assert text.startswith("step 0: the device at x:(1)2=")
    assert "must receive element" in text


def test_addends_that_are_not_brought_together_are_refused() -> None:
    y, z = device("y:(1)2"), device("z:(1)2")
    swap = CollectivePermute(((y, z), (z, y)))
    data = by_hand(rd.Mesh(x=2, y=2, z=2), "i8[8{x}] sum{y}", swap)
    assert data["dst"] == "i8[8{x}] sum{z}"
    certify(data)
    data["steps"][0]["routes"] = [["y:(1)2", "y:(1)2"], ["z:(1)2", "z:(1)2"]]
    assert "or an addend twice" in str(reason(data))


def test_addends_of_a_sum_do_not_become_those_of_a_maximum() -> None:
    step = ReplicatedToPartial((device("x:(1)2"),), "sum")
    data = by_hand(rd.Mesh(x=2, y=2), "f32[8] sum{y}", step)
    certify(data)
    data["steps"][0]["reduction"] = "max"
    data["dst"] = data["steps"][0]["type"] = "f32[8] max{x,y}"
    assert "a step has one reduction; got ['max', 'sum']" in str(reason(data))


def test_the_end_must_be_the_target() -> None:
    data = {**PLANS["aligned exchange"], "dst": PLANS["aligned exchange"]["src"]}
    assert "the steps end in" in str(reason(data))


def test_a_wrong_table_is_refused_with_the_coordinate() -> None:
    data = copy.deepcopy(PLANS["table permute"])
    sources = data["steps"][0]["table"]["sources"]
    sources[1], sources[2] = sources[2], sources[1]
    assert "every coordinate receives the tile that it wants" in str(reason(data))


@pytest.mark.parametrize("wrong", [None, 7, "text", [], {}, {"mesh": 1}])
def test_malformed_plans_are_refused(wrong: Any) -> None:
    assert "malformed" in str(reason(wrong))


def test_without_z3_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "z3", None)
    with pytest.raises(rd.BackendError, match=r"pip install 'redistrib\[z3\]'"):
        certify(PLANS["table permute"])


def test_the_command_proves_or_says_why_not(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    runner = click.testing.CliRunner()
    path.write_text(json.dumps(PLANS["permute and all_to_all"]), encoding="utf-8")
    done = runner.invoke(commands.program, ["check", "--z3", str(path)])
    assert done.exit_code == 0
    assert ": correct\n" in done.stdout
    assert "proved by z3 for all sizes a, b: f32[4*a{x}, 4*b{y}]" in done.stdout
    broken = copy.deepcopy(PLANS["permute and all_to_all"])
    broken["steps"][1]["moves"][0][2] = "0:(4)2"
    path.write_text(json.dumps(broken), encoding="utf-8")
    refused = runner.invoke(commands.program, ["check", "--z3", str(path)])
    assert refused.exit_code == 1
    assert refused.stdout == ""
    assert refused.stderr.count("\n") == 1


def test_the_command_reports_what_only_the_proof_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = copy.deepcopy(PLANS["permute and all_to_all"])
    broken["steps"][1]["moves"][0][2] = "0:(4)2"
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(broken), encoding="utf-8")
    report = rd.check(PLANS["permute and all_to_all"])
    monkeypatch.setattr(rd, "check", lambda _data: report)
    refused = click.testing.CliRunner().invoke(commands.program, ["check", "--z3", str(path)])
    assert refused.exit_code == 1
    assert "step 1" in refused.stderr
