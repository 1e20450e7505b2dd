"""`relabel=True` against all permutations of the devices."""

from __future__ import annotations

import itertools
import random
from math import prod

import numpy as np
from numpy.typing import NDArray

import redistrib as rd
from redistrib.backends.simulator.models import run_model, scatter_model
from redistrib.models.relabel import relabelled
from redistrib.models.segments import AnyType
from redistrib.types.dtypes import itemsize, numpy_dtype
from tests.models.random_maps import RandomMaps
from tests.models.random_moves import random_any_type
from tests.repetitions import MANY, repetitions

DEVICES = range(6)
ORDERS = np.array([*itertools.permutations(DEVICES)])


def mesh(rng: random.Random, first: int = 0) -> rd.Mesh:
    """A mesh of three to six of six devices from `first` on, in some order."""
    axes = rng.choice(({"x": 6}, {"x": 2, "y": 3}, {"x": 3, "y": 2}, {"x": 2, "y": 2}, {"x": 3}))
    return rd.Mesh(axes, devices=rng.sample(range(first, first + 6), prod(axes.values())))


def all_six(rng: random.Random) -> rd.Mesh:
    return rd.Mesh(rng.choice(({"x": 6}, {"x": 2, "y": 3})), devices=rng.sample(DEVICES, 6))


def test_tiles_that_only_change_devices_do_not_move() -> None:
    both = rd.Mesh(x=2, y=4)
    src, dst = {"a": ("f32[16{x,y}]", both)}, {"a": ("f32[16{y,x}]", both)}
    assert rd.plan_model(src, dst).received_bytes > 0
    plan = rd.plan_model(src, dst, relabel=True)
    assert plan.received_bytes == 0
    assert sorted(plan.device_of) == sorted(plan.device_of.values()) == list(range(8))
    tiles = run_model(plan, scatter_model({"a": np.arange(16, dtype="f4")}, plan.src))
    for position, device in enumerate(both.ids):
        asked = rd.ArrayType.parse("f32[16{y,x}]", both).tile(position)[0]
        assert tiles[plan.device_of[device]]["a"].tolist() == asked.tolist()


def lacking(src: dict[str, AnyType], dst: dict[str, AnyType], tied: str) -> NDArray[np.int64]:
    """Bytes that a device [column] lacks of all tiles asked of another [row], element by element.

    The target `tied` takes the elements of `a` that `a` itself brings to the same places.
    """
    made = np.zeros((6, 6), np.int64)
    for name, t in dst.items():
        if name == tied:
            continue
        array = np.arange(prod(t.shape), dtype=numpy_dtype(t.dtype)).reshape(t.shape)
        whole = t.replace(partial=()) if isinstance(t, rd.ArrayType) else t
        held, wanted = (scatter_model({name: array}, {name: s}) for s in (src[name], whole))
        for asked, given in itertools.product(DEVICES, repeat=2):
            if isinstance(t, rd.ArrayType) and holds_the_identity(t, asked):
                continue
            want = set(wanted[asked][name].reshape(-1).tolist())
            have = held.get(given, {}).get(name, np.array([])).reshape(-1).tolist()
            made[asked, given] += len(want.difference(have)) * itemsize(t.dtype)
    return made


def holds_the_identity(t: rd.ArrayType, device: int) -> bool:
    position = t.mesh.ids.index(device)
    return any(t.digit_coordinate(digit, position) for digit in t.partial)


def test_arrays_stay_where_most_of_them_is() -> None:
    rng = random.Random("elements")
    for _ in range(repetitions(20, 200)):
        src: dict[str, AnyType] = {}
        dst: dict[str, AnyType] = {}
        for name in "abc"[: rng.randint(1, 3)]:
            shape, dtype = rng.choice(((6, 4), (7, 3), (12,))), rng.choice(("f32", "f64", "i32"))
            at = mesh(rng, rng.choice((0, 0, 2))), all_six(rng)
            for side, on, partial in ((src, at[0], False), (dst, at[1], rng.random() < 0.6)):
                uneven = rng.random() < 0.3
                side[name] = random_any_type(rng, on, shape, dtype, partial=partial, uneven=uneven)
        dst["tied"] = dst["a"]
        plan = rd.plan_model(src, dst, weights=rd.WeightMap.parse("tied = a"), relabel=True)
        lacks = lacking(src, dst, "tied")
        assert plan.loads.received.sum() == lacks[DEVICES, ORDERS].sum(axis=1).min(), (src, dst)


def test_whole_models_move_as_little_as_under_the_best_permutation() -> None:
    for seed in range(repetitions(2, 100)):
        rng = random.Random(seed)
        maps = RandomMaps(rng)
        made = {f"t{n}": maps.expression(rng.randint(0, 2)) for n in range(rng.randint(1, 3))}
        weights = rd.WeightMap({name: expression for name, (expression, _, _) in made.items()})
        before = [mesh(rng, rng.choice((0, 0, 3))) for _ in range(2)]
        after = [all_six(rng), mesh(rng)]
        src = {
            name: random_any_type(
                rng, rng.choice(before), *given, partial=rng.random() < 0.2, uneven=seed % 2 == 1
            )
            for name, given in maps.shapes.items()
        }
        dst = {
            name: random_any_type(
                rng, after[n % 2], *given, partial=rng.random() < 0.1, uneven=seed % 2 == 1
            )
            for n, (name, (_, *given)) in enumerate(made.items())
        }
        least = min(
            rd.plan_model(src, under(dst, order), weights=weights).loads.received.sum()
            for order in ORDERS[:: repetitions(24, 1)].tolist()
        )
        plan = rd.plan_model(src, dst, weights=weights, relabel=True)
        received = plan.loads.received.sum()
        assert received == least if MANY else received <= least, seed


def under(dst: dict[str, AnyType], order: list[int]) -> dict[str, AnyType]:
    labels = dict(zip(DEVICES, order, strict=True))
    return {name: relabelled(t, labels) for name, t in dst.items()}
