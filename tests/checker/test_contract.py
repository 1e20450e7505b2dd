"""One contract: what the checker accepts is read, and runs to the right tiles as it says.

What it does not accept is a CheckError that names the step, in bounded time and memory.
"""

from __future__ import annotations

import copy
import json
import random
import time
import tracemalloc
from typing import Any

import numpy as np
import pytest

import redistrib as rd
from redistrib.backends import simulator
from redistrib.synth.planner.choose import STRATEGIES
from tests.corruptions import CORRUPTIONS, PLANS, Data, change_somewhere, changed, planned
from tests.generators import random_pair
from tests.problems import array_of, expected_tiles
from tests.repetitions import repetitions

FIGURES = ("received_bytes", "sent_bytes", "live_bytes", "peak_tile_bytes")


def verdict(plan: Any) -> str | None:
    """Why the checker refuses a plan, None if it does not; whichever way, in a sentence."""
    refusal = None
    try:
        rd.check(plan)
    except rd.CheckError as error:
        refusal = error
    if refusal is None:
        return None
    text = str(refusal)
    assert text.startswith("plan: " if refusal.step is None else f"step {refusal.step}: "), text
    assert "malformed" not in text, text
    return text


def verify_contract(data: Data, rng: random.Random) -> bool:
    """Whether the checker accepts a plan, which is then read and runs as it says."""
    text = json.dumps(data)
    reason = verdict(text)
    assert (verdict(data) is None) == (reason is None)
    if reason is not None:
        return False
    plan = rd.Plan.from_json(text)
    assert verdict(plan) is None
    measured = simulator.measure(plan)
    for figure in FIGURES:
        assert getattr(measured, figure) == data[figure], figure
    array = array_of(rng, plan.src)
    tiles = simulator.run(plan, simulator.scatter(array, plan.src))
    np.testing.assert_array_equal(simulator.gather(tiles, plan.dst), array)
    if not plan.dst.partial:
        for got, want in zip(tiles, expected_tiles(array, plan.dst), strict=True):
            np.testing.assert_array_equal(got, want)
    return True


def drawn(rng: random.Random) -> Data:
    """The plan of a random pair of small arrays."""
    while True:
        src, dst = random_pair(rng.choice, partial=rng.random() < 0.3)
        if max(src.size, src.mesh.num_devices) > 4096 or "prod" in (src.reduction, dst.reduction):
            continue
        try:
            plan = rd.plan(src, dst, strategy=rng.choice(("auto", "collectives", "direct")))
        except rd.InfeasibleError:
            continue
        if plan.steps:
            data: Data = json.loads(plan.to_json())
            return data


def verify_changed(seed: int) -> bool:
    """Whether a plan with one to three entries changed is accepted; then it runs as it says."""
    rng = random.Random(seed)
    data = copy.deepcopy(rng.choice(list(PLANS.values()))) if seed % 3 else drawn(rng)
    for _ in range(rng.choice((1, 1, 2, 3))):
        change_somewhere(rng, data)
    return verify_contract(data, rng)


def test_there_are_at_least_forty_kinds_of_corruption() -> None:
    assert len(CORRUPTIONS) >= 40


@pytest.mark.parametrize("block", range(4))
def test_what_is_accepted_runs_as_it_says(block: int) -> None:
    """Plans with one to three entries changed: few are still right, and these do what they say."""
    seeds = range(block, repetitions(1200, 16_000), 4)
    assert 0 < sum(map(verify_changed, seeds)) < len(seeds) / 2


def test_corrupted_random_plans_are_refused() -> None:
    """But for those that are right as well: a table may name another replica of a tile."""
    kinds, accepted = dict.fromkeys(CORRUPTIONS, 0), 0
    for seed in range(repetitions(40, 500)):
        rng = random.Random(seed)
        data = drawn(rng)
        assert verify_contract(data, rng)
        for name in rng.sample(list(CORRUPTIONS), 12):
            bad = list(CORRUPTIONS[name](data))
            for wrong in rng.sample(bad, min(len(bad), 3)):
                if json.dumps(wrong) != json.dumps(data):  # scalars have no other shape
                    right = verify_contract(wrong, rng)
                    kinds[name] += not right
                    accepted += right
    assert sum(count > 0 for count in kinds.values()) > 35
    assert accepted <= 0.01 * sum(kinds.values())


X = {"axes": [["x", 4]], "devices": None}
HUGE: dict[str, Data] = {
    "an exchange without tables on a huge mesh": changed(
        {**PLANS["misaligned exchange"]}, "mesh", "axes", to=[["x", 2**31], ["y", 3 * 2**30]]
    ),
    "two orders of few devices and a large array": {
        **PLANS["aligned exchange"],
        "mesh": {"axes": [["x", 2]], "devices": [0, 1]},
        "dst_mesh": {"axes": [["x", 2]], "devices": [1, 0]},
        "src": "f32[1073741824{x}]",
        "dst": "f32[1073741824{x}]",
        "steps": [],
    },
    "digits of a thousand places": changed(
        PLANS["aligned exchange"], "src", to=f"f32[{'9' * 600}{{x}}, {'8' * 600}{{y}}]"
    ),
    "a mesh of many axes": changed(
        PLANS["aligned exchange"], "mesh", "axes", to=[[f"a{n}", 2] for n in range(60_000)]
    ),
    "many dimensions": changed(
        PLANS["aligned exchange"], "src", to="f32[" + ", ".join(["2"] * 300_000) + "]"
    ),
    "many digits in a step": changed(
        PLANS["slice, all_to_all, gather"],
        *("steps", 0, "placements"),
        to=[["y:(1)2", "1:(1)2"]] * 40_000,
    ),
    "many steps": changed(
        PLANS["aligned exchange"], "steps", to=PLANS["aligned exchange"]["steps"] * 2500
    ),
    "a table of many rows": changed(
        PLANS["misaligned exchange between replicas"],
        *("steps", 0, "tables", 0, "rows"),
        to=[[[0, 0]]] * 80_000,
    ),
    "many links": changed(
        PLANS["aligned exchange"],
        "profile",
        "axes",
        to={f"a{n}": {"latency": 1.0, "bandwidth": 1.0} for n in range(15_000)},
    ),
}


@pytest.mark.parametrize("name", HUGE)
def test_a_small_file_cannot_ask_for_much(name: str) -> None:
    text = json.dumps(HUGE[name])
    assert len(text) < 1 << 20
    start = time.process_time()
    assert verdict(text) is not None or name == "many links"
    assert time.process_time() - start < 2
    tracemalloc.start()
    try:
        verdict(text)
        assert tracemalloc.get_traced_memory()[1] < 500e6
    finally:
        tracemalloc.stop()


LARGE = (
    ("x=16,y=20,z=28", "bf16[8960{x}, 8960{y}, 8960{z}]", "bf16[8960{y}, 8960{z}, 8960{x}]"),
    ("x=120,y=126", "f32[15120{x}, 15120{y}]", "f32[15120{y}, 15120{x}]"),
    ("x=60,y=84", "f32[5040{x}, 5040{y}]", "f32[5040{y}, 5040{x}]"),
    ("x=256,y=256", "f32[65536{x}, 65536{y}]", "f32[65536{y}, 65536{x}]"),
    ("x=256,y=255", "f32[65280{x}, 65280{y}]", "f32[65280{y}, 65280{x}]"),
    ("x=6,y=4", "f32[3145728{_524288,x}]", "f32[3145728{y}]"),
    ("x=512,y=3", "f32[1536{x}]", "f32[1536{y}]"),
    ("x=48,y=20", "f32[9600{x,y}, 9600]", "f32[9600, 9600{y,x}]"),
    ("a=6,b=10,c=15", "f32[900{a,b}, 900{c}]", "f32[900{b,c}, 900{a}]"),
)


@pytest.mark.parametrize(("mesh", "src", "dst"), LARGE)
def test_what_is_planned_is_checked_in_a_second(mesh: str, src: str, dst: str) -> None:
    data = planned(rd.Mesh.parse(mesh), src, dst, "direct")
    start = time.process_time()
    rd.check(data)
    assert time.process_time() - start < 1


def test_every_strategy_is_one_that_the_checker_knows() -> None:
    mesh = rd.Mesh(x=2, y=2)
    ends = [rd.ArrayType.parse(text, mesh) for text in ("f32[8{x}, 8{y}]", "f32[8{y}, 8{x}]")]
    for strategy in STRATEGIES:
        rd.check(rd.plan(*ends, strategy=strategy))


def test_transposes_are_accepted() -> None:
    count = 0
    for seed in range(repetitions(150, 5000)):
        src, dst = random_pair(random.Random(seed).choice)
        for strategy in ("auto", "collectives", "direct"):
            try:
                back = rd.plan(src, dst, strategy=strategy).transpose()
            except (rd.LayoutError, rd.InfeasibleError):
                continue
            assert verdict(back) is None, f"seed {seed}, {strategy}"
            count += 1
    assert count > repetitions(150, 5000)


def test_two_factorings_of_one_device_list_have_one_lower_bound() -> None:
    count = 0
    for seed in range(repetitions(60, 1000)):
        rng = random.Random(seed)
        sizes = rng.sample([(6,), (2, 3), (3, 2)], 2)
        devices = rng.sample(range(6), 6) if seed % 2 else None
        meshes = [rd.Mesh(zip("xy", n, strict=False), devices=devices) for n in sizes]
        ends = []
        for mesh in meshes:
            axes = rng.sample([name for name, _ in mesh.axes], rng.randint(0, len(mesh.axes)))
            partial = [name for name, _ in mesh.axes if name not in axes and rng.random() < 0.4]
            cut = rng.randint(0, len(axes))
            ends.append(rd.ArrayType(mesh, "i32", (12, 6), [axes[:cut], axes[cut:]], partial))
        try:
            plan = rd.plan(*ends)
            plans = [plan, plan.transpose(), plan.transpose().transpose()]
        except rd.LayoutError:  # the transpose is a sum that no step is
            continue
        for one in plans:
            assert rd.check(one)["lower_bound_bytes"] == one.lower_bound_bytes
            count += 1
    assert count > repetitions(60, 1000)
