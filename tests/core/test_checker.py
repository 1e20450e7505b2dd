"""The independent checker: it passes every right plan and catches every corruption of one."""

from __future__ import annotations

import ast
import copy
import json
import math
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import redistrib as rd
from redistrib.backends import simulator
from redistrib.checker import checker, senders
from redistrib.checker.certificate import certify
from redistrib.synth.plan import collectives as c
from redistrib.synth.plan.links import Level
from redistrib.synth.plan.profile import COMMUNICATING, Execution
from redistrib.types.digits import parse_device_digit as device
from redistrib.types.digits import parse_index_digit as index
from tests.corruptions import (
    CORRUPTIONS,
    PLANS,
    XY,
    by_hand,
    by_table,
    change_somewhere,
    changed,
    planned,
)
from tests.problems import (
    array_of,
    expected_tiles,
    random_mesh,
    random_shape,
    random_type,
    random_walk,
)
from tests.repetitions import repetitions


def messages(data: Any) -> str | None:
    """Why the checker refuses a plan; None if it does not."""
    try:
        checker.check(data)
    except rd.CheckError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", PLANS)
def test_right_plans_pass(name: str) -> None:
    report = checker.check(PLANS[name])
    assert report["received_bytes"] == PLANS[name]["received_bytes"]
    assert checker.check(json.dumps(PLANS[name])) == report
    assert checker.check(rd.Plan.from_json(json.dumps(PLANS[name]))) == report


def test_random_plans_pass() -> None:
    for seed in range(repetitions(100, 300)):
        rng = random.Random(seed)
        mesh = random_mesh(rng)
        shape = random_shape(rng, mesh)
        src, dst = random_type(rng, mesh, shape), random_type(rng, mesh, shape)
        checker.check(rd.plan(src, dst, strategy="direct"))
        start = random_type(rng, mesh, shape, partial=None)
        plan = replace(random_walk(rng, start, 4), strategy="auto")
        # A random walk grows tiles as it likes.
        data = {**json.loads(plan.to_json()), "memory_limit": plan.peak_tile_bytes}
        checker.check(data)


def test_every_corruption_applies_to_some_plans_and_is_caught() -> None:
    caught = dict.fromkeys(CORRUPTIONS, 0)
    plans = dict.fromkeys(CORRUPTIONS, 0)
    for name, data in PLANS.items():
        assert messages(data) is None
        for kind, make in CORRUPTIONS.items():
            bad = list(make(data))
            plans[kind] += bool(bad)
            for wrong in bad:
                assert json.dumps(wrong) != json.dumps(data)
                assert messages(wrong) is not None, f"{kind} of {name} passes: {wrong}"
                caught[kind] += 1
    assert all(count >= 2 for kind, count in plans.items() if kind != "wrong reduction"), plans
    assert sum(caught.values()) > 3000


@pytest.mark.parametrize("name", PLANS)
def test_truncated_text_is_refused(name: str) -> None:
    text = json.dumps(PLANS[name])
    for end in range(0, len(text), 7):
        assert messages(text[:end]) is not None
    assert messages("{" * 100_000) is not None
    assert messages("[" * 100_000) is not None


def test_what_passes_after_a_random_change_is_still_right() -> None:
    """A change that the checker lets through must leave a plan that does what it says."""
    passed, changes = 0, repetitions(600, 3000)
    for seed in range(changes):
        rng = random.Random(seed)
        data = copy.deepcopy(rng.choice(list(PLANS.values())))
        change_somewhere(rng, data)
        if messages(data) is not None:
            continue
        passed += 1
        plan = rd.Plan.from_json(json.dumps(data))
        array = array_of(rng, plan.src)
        tiles = simulator.run(plan, simulator.scatter(array, plan.src))
        np.testing.assert_array_equal(simulator.gather(tiles, plan.dst), array)
        if not plan.dst.partial:
            for got, want in zip(tiles, expected_tiles(array, plan.dst), strict=True):
                np.testing.assert_array_equal(got, want)
        measured = simulator.measure(plan)
        for figure in ("received_bytes", "sent_bytes", "live_bytes", "peak_tile_bytes"):
            assert getattr(measured, figure) == data[figure]
    assert 0 < passed < changes / 2


def test_a_tile_above_both_ends_needs_a_memory_limit() -> None:
    gathered = (device("x:(1)2"), index("0:(1)2"))
    data = by_hand(XY, "f32[8{x}, 8]", c.AllGather((gathered,)), c.DynamicSlice((gathered,)))
    assert messages(data) == "plan: does not hold: no tile is above 128 bytes; the largest is 256"
    assert messages({**data, "memory_limit": 256}) is None
    assert messages({**data, "memory_limit": 255}) is not None
    assert messages({**data, "memory_limit": "much"}) is not None


def priced(rng: random.Random) -> rd.Profile:
    """Any profile: links by axis, levels, efficiencies, both ways to run an exchange."""

    def link() -> rd.Link:
        return rd.Link(rng.choice((0, 1e-6, 3e-6)), rng.choice((1e9, 7e9, 1e11 / 3)))

    axes = tuple((axis, link()) for axis in "xyz" if rng.random() < 0.3)
    levels = tuple(Level(k, link()) for k in (2, 4, 6, 24) if rng.random() < 0.3)
    efficiency = tuple((name, 0.7) for name in COMMUNICATING if rng.random() < 0.2)
    kind: Execution = rng.choice(("call", "rounds"))
    return rd.Profile("any", link(), axes, kind, levels, efficiency)


def test_seconds_are_derived_from_the_profile_to_the_last_bit() -> None:
    told, pairs = 0, repetitions(40, 300)
    for seed in range(pairs):
        rng = random.Random(seed)
        mesh = random_mesh(rng)
        if rng.random() < 0.5:
            devices = rng.sample(range(mesh.num_devices + 3), mesh.num_devices)
            mesh = rd.Mesh(mesh.axes, devices=devices)
        shape = random_shape(rng, mesh)
        src, dst = random_type(rng, mesh, shape), random_type(rng, mesh, shape)
        for strategy in ("auto", "collectives", "direct"):
            try:
                plan = rd.plan(src, dst, strategy=strategy, profile=priced(rng))
            except rd.InfeasibleError:
                continue
            data = json.loads(plan.to_json())
            assert messages(data) is None
            for wrong in (math.nextafter(plan.seconds, 1), plan.seconds * 2 + 1):
                assert messages({**data, "seconds": wrong}) is not None
            for key, other in (("latency", 1.0), ("bandwidth", 1.0), ("exchange", "call")):
                profile = {**data["profile"], key: other}
                told += messages({**data, "profile": profile}) is not None
    assert told > pairs


def test_collectives_contains_no_exchange() -> None:
    data = PLANS["aligned exchange"]
    assert "it may exchange" in str(messages({**data, "strategy": "collectives"}))


def test_an_exchange_that_does_not_keep_the_own_piece_is_refused() -> None:
    mesh = rd.Mesh(x=2, y=2)
    data = by_hand(mesh, "f32[4{x}]", c.Exchange(((device("x:(1)2"), index("0:(1)2")),)))
    assert messages(data) is None
    # Each device now takes from a replica what it holds itself.
    wrong = changed(data, "steps", 0, "replicas", to=[["y:(1)2", "x:(1)2"]])
    assert "names its own replicas" in str(messages(wrong))


def test_an_unbalanced_choice_of_replicas_is_refused() -> None:
    data = PLANS["aligned exchange between replicas"]
    wrong = changed(data, "steps", 0, "replicas", to=[])
    assert "all replicas serve the same amount" in str(messages(wrong))


def test_a_table_that_asks_a_replica_for_what_the_receiver_holds_is_refused() -> None:
    data = PLANS["misaligned exchange between replicas"]
    rows = data["steps"][0]["tables"][0]["rows"]
    at, entry, value = next(
        (a, e, value)
        for a, row in enumerate(rows)
        for e, (value, sender) in enumerate(row)
        if sender == a
    )
    replica = next(s for row in rows for v, s in row if v == value and s != at)
    wrong = changed(data, "steps", 0, "tables", 0, "rows", at, entry, 1, to=replica)
    assert "a device keeps what it already holds" in str(messages(wrong))


def test_a_table_that_asks_who_lacks_the_element_is_refused() -> None:
    data = PLANS["misaligned exchange between replicas"]
    (table,) = data["steps"][0]["tables"]
    rows = table["rows"]
    asked = next(row for row in rows if len(row) > 1)
    value, path = asked[1][0], ("steps", 0, "tables", 0, "rows", rows.index(asked), 1, 1)
    right = {sender for row in rows for held, sender in row if held == value}
    lacking = {sender for row in rows for _, sender in row} - right
    assert lacking
    for sender in lacking:
        text = str(messages(changed(data, *path, to=sender)))
        assert "who sends an element holds it" in text


def test_only_what_is_free_in_the_source_chooses_among_replicas() -> None:
    data = PLANS["aligned exchange"]
    wrong = changed(data, "steps", 0, "replicas", to=[["x:(1)2", "y:(1)2"]])
    assert "x:(1)2 is free in f32[8{x}, 8{y}]" in str(messages(wrong))


def test_addends_of_a_sum_do_not_become_those_of_a_maximum() -> None:
    step = c.ReplicatedToPartial((device("x:(1)2"),), "sum")
    data = by_hand(XY, "f32[8] sum{y}", step)
    assert messages(data) is None
    wrong = changed(data, "steps", 0, "reduction", to="max")
    wrong["dst"] = wrong["steps"][0]["type"] = "f32[8] max{x,y}"
    assert "f32[8] sum{y} is partial under max" in str(messages(wrong))


def test_a_step_names_a_digit_once() -> None:
    data = by_hand(XY, "f32[8]", c.ReplicatedToPartial((device("x:(1)2"),), "sum"))
    wrong = changed(data, "steps", 0, "digits", to=["x:(1)2", "x:(1)2"])
    wrong["steps"][0]["axes"] = ["x", "x"]
    assert "a step names disjoint parts of axes" in str(messages(wrong))


def test_a_table_that_takes_two_tiles_from_one_replica_is_refused() -> None:
    data = by_table(rd.Mesh(x=6), "f32[6{x:(3)2}]", "f32[6{x:(1)2}]")
    assert data["steps"][0]["table"]["sources"] == [0, 4, 2, 3, 1, 5]
    other = changed(data, "steps", 0, "table", "sources", to=[2, 4, 0, 3, 1, 5])
    assert messages(other) is None
    wrong = changed(data, "steps", 0, "table", "sources", to=[0, 4, 0, 3, 1, 5])
    assert "the sources of a table are a permutation" in str(messages(wrong))
    with pytest.raises(rd.CheckError, match="the sources of a table are a permutation"):
        certify(wrong)


def test_index_digits_that_are_not_nested_are_refused() -> None:
    data = by_hand(
        rd.Mesh(x=2),
        "f32[12{x}]",
        c.AllToAll((c.Move(device("x:(1)2"), index("0:(1)2"), index("0:(6)2")),)),
    )
    wrong = changed(data, "steps", 0, "moves", 0, 2, to="0:(3)2")
    assert "0:(3)2 is local in f32[12{x}]" in str(messages(wrong))


def test_the_step_at_fault_is_named() -> None:
    data = PLANS["slice, all_to_all, gather"]
    with pytest.raises(
        rd.CheckError, match=r"^step 1: does not hold: sent_bytes is 512; "
    ) as caught:
        checker.check(changed(data, "steps", 1, "sent_bytes", to=513))
    assert caught.value.step == 1
    with pytest.raises(
        rd.CheckError, match=r"^plan: a plan has the key mesh; it is missing"
    ) as caught:
        checker.check({k: v for k, v in data.items() if k != "mesh"})
    assert caught.value.step is None


def test_the_lower_bound_of_a_cycle_of_reductions() -> None:
    # Of the elements, half are held where they are wanted: 4 + (2 - 1 - 1/2) 16 / 8.
    mesh = rd.Mesh(x=2, y=2, z=2)
    ends = [rd.ArrayType.parse(t, mesh) for t in ("i8[4{x}, 4{y}] sum{z}", "i8[4{y}, 4{x}]")]
    plan = rd.plan(*ends)
    assert plan.lower_bound_bytes == 5
    checker.check(plan)


def test_a_plan_for_65536_devices_is_checked_by_its_digits() -> None:
    mesh = rd.Mesh(x=64, y=32, z=32)
    for src, dst in (
        ("f32[65536{x}, 65536{y,z}]", "f32[65536{z,y}, 65536{x}]"),
        ("f32[65536{x,y}, 65536]", "f32[65536{_8,z}, 65536{x}]"),
    ):
        data = planned(mesh, src, dst, "direct")
        start = time.process_time()
        checker.check(data)
        assert time.process_time() - start < 0.5


def test_the_checker_is_short_and_shares_only_the_types() -> None:
    files = [*Path(checker.__file__).parent.glob("*.py")]
    for path in files:
        source = path.read_text(encoding="utf-8")
        assert len(source.splitlines()) < 400
        nodes = ast.walk(ast.parse(source))
        modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        ours = {name for name in modules if name and name.startswith("redistrib")}
        assert ours <= {
            "redistrib.errors",
            *(f"redistrib.checker.{module.stem}" for module in files),
            *(
                f"redistrib.types.{name}"
                for name in [
                    "array_type",
                    "digits",
                    "equivalence",
                    "mesh",
                    "notation",
                    "positions",
                    "uneven",
                ]
            ),
        }


def test_a_large_exchange_without_common_digits_is_checked() -> None:
    mesh = rd.Mesh(x=8, y=12, z=10)
    texts = ("f32[240{x}, 240{y}, 240{z}]", "f32[240{z}, 240{x}, 240{y}]")
    src, dst = (rd.ArrayType.parse(text, mesh) for text in texts)
    assert rd.check(rd.plan(src, dst, strategy="direct"))["num_collectives"] == 1


def test_loads_that_are_left_out_never_send_the_most() -> None:
    rng = random.Random(0)
    for _ in range(200):
        loads = set()
        for _ in range(rng.randint(1, 12)):
            kept = rng.randint(0, 20)
            loads.add((kept + rng.randint(0, 20), kept))
        left = senders.worst(loads)
        assert left <= loads
        for total, kept in ((1, 0), (1, 1), (5, 3), (20, 19)):
            sent = max(total * a - kept * b for a, b in loads)
            assert max(total * a - kept * b for a, b in left) == sent
