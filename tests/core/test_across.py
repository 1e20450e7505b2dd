"""Plans between two meshes: the same devices factored or ordered otherwise, and other devices."""

from __future__ import annotations

import json
import random
from collections import Counter
from math import prod

import numpy as np
import pytest

import redistrib as rd
from redistrib.backends import simulator
from redistrib.synth.plan.pieces import pieces_of
from redistrib.synth.plan.routing import exchange_traffic
from redistrib.types.equivalence import equivalent, on_mesh
from tests.generators import random_layout
from tests.repetitions import repetitions
from tests.verify import verify_plan

SIZES = ([2], [4], [2, 2], [6], [3, 2], [2, 3], [8], [4, 2], [2, 2, 2], [12], [2, 6], [1], [5, 1])


def mesh_pair(rng: random.Random) -> tuple[rd.Mesh, rd.Mesh]:
    """Two meshes: on the same devices half of the time, with common ones or none else."""
    first, second = rng.choice(SIZES), rng.choice(SIZES)
    if rng.random() < 0.5:
        second = rng.choice([sizes for sizes in SIZES if prod(sizes) == prod(first)])
    ids: list[list[int] | None] = [None, None]
    match rng.choice(("in order", "transposed", "shuffled", "other")):
        case "transposed":
            order = rng.sample(range(len(second)), len(second))
            grid = np.arange(prod(second)).reshape([second[axis] for axis in order])
            ids[1] = grid.transpose(np.argsort(order)).reshape(-1).tolist()
        case "shuffled":
            ids = [rng.sample(range(prod(sizes)), prod(sizes)) for sizes in (first, second)]
        case "other":
            ids = [rng.sample(range(16), prod(sizes)) for sizes in (first, second)]
    source = rd.Mesh(zip("xyz", first, strict=False), devices=ids[0])
    return source, rd.Mesh(zip("abc", second, strict=False), devices=ids[1])


def random_type(rng: random.Random, mesh: rd.Mesh, shape: tuple[int, ...]) -> rd.ArrayType:
    while True:
        dims, partial, products = random_layout(rng.choice, mesh, len(shape), partial=True)
        if all(n % k == 0 for n, k in zip(shape, products, strict=True)):
            kind = rng.choice(("sum", "max"))
            return rd.ArrayType(mesh, "i32", shape, dims, partial, kind)


@pytest.mark.parametrize("seed", range(repetitions(2, 6)))
def test_plans_between_random_meshes(seed: int) -> None:
    rng = random.Random(seed)
    kinds: Counter[str] = Counter()
    for _ in range(60):
        source, target = mesh_pair(rng)
        shape = rng.choice(((24, 24), (48,), (12, 4, 24), (0, 24)))
        src, dst = random_type(rng, source, shape), random_type(rng, target, shape)
        for strategy in ("auto", "direct", "collectives"):
            try:
                plan = rd.plan(src, dst, strategy=strategy)
            except rd.InfeasibleError:
                continue
            except rd.LayoutError:
                assert strategy == "collectives"
                assert on_mesh(dst, source) is None
                continue
            assert (plan.src, plan.dst) == (src, dst)
            verify_plan(plan, aligned=False)
            again = rd.Plan.from_json(plan.to_json())
            assert again == plan
            kinds["across" if plan.types[-1].mesh == target else "on one mesh"] += 1
    assert min(kinds.values()) > 20


@pytest.mark.parametrize("seed", range(4))
def test_a_type_on_another_mesh_means_the_same(seed: int) -> None:
    rng = random.Random(seed)
    found = 0
    for _ in range(300):
        source, target = mesh_pair(rng)
        t = random_type(rng, source, (48, 24))
        there = on_mesh(t, target)
        if there is None:
            continue
        found += 1
        assert equivalent(t, there)
        assert on_mesh(there, source) == t
        place = {device: position for position, device in enumerate(target.ids)}
        for position, device in enumerate(source.ids):
            ours, theirs = t.tile(position), there.tile(place[device])
            assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert found > 50


def test_other_devices_receive_each_element_once_per_group_of_replicas() -> None:
    """Where that is cheaper: two latencies, not one from each of eight senders."""
    source, target = rd.Mesh(x=8), rd.Mesh({"a": 2, "b": 4}, devices=range(8, 16))
    src = rd.ArrayType.parse("f32[64{x}]", source)
    dst = rd.ArrayType.parse("f32[64{a}]", target)
    plan = rd.plan(src, dst)
    assert [step.collective for step in plan.steps] == ["exchange", "all_gather"]
    assert [str(t) for t in plan.types[1:]] == ["f32[64{a,b}]", "f32[64{a}]"]
    assert plan.received_bytes == plan.lower_bound_bytes == dst.tile_bytes
    crossing = simulator.measure(plan).sent_bytes_per_step[0] * source.num_devices
    assert crossing == 64 * 4


@pytest.mark.parametrize("seed", range(repetitions(1, 4)))
def test_auto_is_no_dearer_than_direct_between_two_meshes(seed: int) -> None:
    rng = random.Random(seed)
    ways: Counter[bool] = Counter()
    for _ in range(80):
        source, target = mesh_pair(rng)
        src, dst = (random_type(rng, mesh, (48, 24)) for mesh in (source, target))
        auto, direct = (rd.plan(src, dst, strategy=way) for way in ("auto", "direct"))
        assert auto.seconds <= direct.seconds
        if on_mesh(dst, source) is None:
            ways[auto.steps == direct.steps] += 1
    assert min(ways.values()) > 3


def test_a_mesh_of_the_same_devices_needs_no_exchange() -> None:
    src = rd.ArrayType.parse("f32[64{x}, 8]", rd.Mesh(x=8))
    turned = rd.Mesh({"a": 4, "b": 2}, devices=[0, 2, 4, 6, 1, 3, 5, 7])
    same = rd.ArrayType.parse("f32[64{b,a}, 8]", rd.Mesh(a=4, b=2))
    assert rd.plan(src, rd.ArrayType.parse("f32[64{a,b}, 8]", rd.Mesh(a=4, b=2))).steps == ()
    assert rd.plan(src, same).num_collectives == 1
    plan = rd.plan(src, rd.ArrayType.parse("f32[64{b,a}, 8]", turned), strategy="collectives")
    assert str(plan.types[-1]) == "f32[64{x:(2)4,x:(1)2}, 8]"


def test_a_plan_to_other_devices_needs_an_exchange() -> None:
    src = rd.ArrayType.parse("f32[64{x}]", rd.Mesh(x=8))
    dst = rd.ArrayType.parse("f32[64{x}]", rd.Mesh(x=16))
    with pytest.raises(rd.LayoutError, match=r"only an exchange leads from mesh .* auto, direct"):
        rd.plan(src, dst, strategy="collectives")
    with pytest.raises(rd.LayoutError, match=r"one shape; got \[64\] and \[32\]"):
        rd.plan(src, rd.ArrayType.parse("f32[32{x}]", rd.Mesh(x=16)))


def test_the_transpose_between_two_meshes() -> None:
    src = rd.ArrayType.parse("f32[64{x}]", rd.Mesh(x=4))
    dst = rd.ArrayType.parse("f32[64{a}]", rd.Mesh({"a": 8}, devices=range(4, 12)))
    back = rd.plan(src, dst).transpose()
    assert (back.src, back.dst) == (dst, src)
    verify_plan(back, aligned=False)
    replicated = rd.ArrayType.parse("f32[64]", dst.mesh)
    with pytest.raises(rd.LayoutError, match="the transpose of an exchange"):
        rd.plan(src, replicated, strategy="direct").transpose()


def test_the_checker_reads_the_table_to_another_mesh() -> None:
    src = rd.ArrayType.parse("f32[64{x}, 2]", rd.Mesh(x=4, y=2))
    dst = rd.ArrayType.parse("f32[64{a}, 2{b}]", rd.Mesh({"a": 2, "b": 2}, devices=[8, 2, 5, 9]))
    text = rd.plan(src, dst, strategy="direct").to_json()
    rd.check(text)
    caught = 0
    for row in range(4):
        for entry in range(len(json.loads(text)["steps"][0]["tables"][0]["rows"][row])):
            for wrong in range(-1, 9):
                data = json.loads(text)
                pair = data["steps"][0]["tables"][0]["rows"][row][entry]
                if pair[1] // 2 == wrong // 2 and wrong >= 0:
                    continue  # the other replica
                pair[1] = wrong
                with pytest.raises(rd.CheckError):
                    rd.check(data)
                caught += 1
    assert caught > 40
    for change in ({"onto": None}, {"tables": []}, {"replicas": [["x:(1)2", "x:(2)2"]]}):
        data = json.loads(text)
        data["steps"][0] |= change
        if change == {"onto": None}:
            del data["steps"][0]["onto"]
        with pytest.raises(rd.CheckError):
            rd.check(data)


@pytest.mark.parametrize("seed", range(repetitions(1, 3)))
def test_the_boxes_of_an_exchange_across(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(40):
        source, target = mesh_pair(rng)
        src, dst = (
            random_type(rng, mesh, (24, 24)).replace(partial=()) for mesh in (source, target)
        )
        step = exchange_traffic(src, dst).exchange
        if step.mesh is None:
            continue
        found = pieces_of(step, src, dst)
        array = np.arange(src.size, dtype=np.int32).reshape(src.shape)
        blocks = array[tuple(slice(None, None, size) for size in found.block)]
        held = simulator.scatter(array, src)
        made = [np.full(found.after, -1) for _ in range(target.num_devices)]
        for piece in found.pieces:
            tile = held[piece.sender][tuple(slice(None, None, size) for size in found.block)]
            made[piece.receiver][np.ix_(*piece.put)] = tile[np.ix_(*piece.take)]
        coarse = rd.ArrayType(target, "i32", blocks.shape, dst.dims)
        for position, tile in enumerate(made):
            assert np.array_equal(tile, blocks[np.ix_(*coarse.tile(position))])


def test_the_report_names_both_meshes() -> None:
    src = rd.ArrayType.parse("f32[60{x}, 8{y}]", rd.Mesh(x=2, y=2))
    plan = rd.plan(src, rd.ArrayType.parse("f32[60{a}, 8]", rd.Mesh(a=3)))
    assert "mesh        x=2,y=2 -> a=3" in str(plan)
    assert "<table" in plan._repr_html_()


@pytest.mark.parametrize("src", ["f32[]", "f32[] sum{x}", "f32[] max{x,y}"])
@pytest.mark.parametrize("devices", [[5, 1, 2], [5, 21, 22], [20, 21, 22]])
def test_a_scalar_goes_to_another_mesh(src: str, devices: list[int]) -> None:
    start = rd.ArrayType.parse(src, rd.Mesh(x=2, y=4))
    plan = rd.plan(start, rd.ArrayType.parse("f32[]", rd.Mesh({"z": 3}, devices=devices)))
    assert rd.check(plan)["received_bytes"] == simulator.measure(plan).received_bytes


@pytest.mark.parametrize("second", ["free", "partial", "owner"])
@pytest.mark.parametrize("first", ["free", "partial", "owner"])
def test_replicas_gather_all_but_what_becomes_partial(first: str, second: str) -> None:
    """Each half of an axis of the target is free, partial or an owner: on other devices."""
    there = rd.Mesh({"a": 4}, devices=[4, 5, 6, 7])
    roles = {"a:(1)2": first, "a:(2)2": second}
    owners = [digit for digit, role in roles.items() if role == "owner"]
    partial = [digit for digit, role in roles.items() if role == "partial"]
    dst = rd.ArrayType(there, "f32", (24,), [owners], partial)
    for source in ("f32[24{x}]", "f32[24] sum{x}"):
        for strategy in ("auto", "direct"):
            plan = rd.plan(rd.ArrayType.parse(source, rd.Mesh(x=4)), dst, strategy=strategy)
            verify_plan(plan, aligned=False)
