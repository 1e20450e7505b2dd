"""Partial sums: in normal form, in batches, and the laws of their prices."""

from __future__ import annotations

import pickle
import random

import pytest

import redistrib as rd
from redistrib.synth.plan.profile import find_profile
from redistrib.synth.planner.normal_form import normal_form
from redistrib.types.digits import DeviceDigit, Factor, Local
from redistrib.types.refinement import refine
from tests.generators import partial_layouts, random_pair
from tests.oracle.laws import THREE
from tests.repetitions import repetitions


def relabelled(rng: random.Random, pair: list[rd.ArrayType]) -> list[rd.ArrayType]:
    """The same types with other names of axes, another order of the mesh and of dimensions."""
    mesh, rank = pair[0].mesh, len(pair[0].shape)
    names = [name for name, _ in mesh.axes]
    new = dict(
        zip(names, rng.sample([f"q{n}" for n in range(len(names))], len(names)), strict=True)
    )
    axes = rng.sample([(new[name], size) for name, size in mesh.axes], len(names))
    other, order = rd.Mesh(axes), rng.sample(range(rank), rank)

    def renamed(factor: Factor) -> Factor:
        if isinstance(factor, Local):
            return factor
        return DeviceDigit(new[factor.axis], factor.pre, factor.size)

    return [
        rd.ArrayType(
            other,
            t.dtype,
            [t.shape[d] for d in order],
            [[renamed(f) for f in t.dims[d]] for d in order],
            [renamed(f) for f in t.partial],
            t.reduction or "sum",
        )
        for t in pair
    ]


def partial_pairs(rng: random.Random, count: int) -> list[list[rd.ArrayType]]:
    """Random pairs whose digits match, an end of them partial."""
    found: list[list[rd.ArrayType]] = []
    while len(found) < count:
        pair = random_pair(rng.choice)
        summed = pair[0].partial or pair[1].partial
        if summed and pair[0].size and refine(*pair).aligned:
            found.append(list(pair))
    return found


def test_names_orders_and_dimensions_change_no_price_with_partial_sums() -> None:
    rng = random.Random(1)
    for pair in partial_pairs(rng, repetitions(25, 20_000)):
        other = relabelled(rng, pair)
        for strategy in ("auto", "collectives"):
            found = rd.plan(*pair, strategy=strategy)
            rd.check(found)
            assert found.seconds == rd.cost(*other, strategy=strategy).seconds, list(map(str, pair))


def test_the_normal_form_of_its_example() -> None:
    mesh = rd.Mesh(x=2, y=4, z=2, w=2)
    src = rd.ArrayType.parse("f32[64{z}, 64{y}] sum{x,w}", mesh)
    dst = rd.ArrayType.parse("f32[64{z,x}, 64]", mesh)
    normal = normal_form(src, dst, refine(src, dst), find_profile(None))
    assert str(normal.src) == "f32[2, 4{d2}, 256] sum{d0,d1}"
    assert str(normal.dst) == "f32[2{d1}, 4, 256]"


@pytest.mark.parametrize("profile", [None, "dgx-h100", THREE], ids=str)
@pytest.mark.parametrize("axes", [(2, 4), (4, 3)], ids=str)
def test_a_matrix_with_partial_sums_has_the_prices_of_its_plans(
    axes: tuple[int, ...], profile: rd.Profile | str | None
) -> None:
    mesh = rd.Mesh(dict(zip("abc", axes, strict=False)))
    types = list(partial_layouts(mesh, (96,) * len(axes)))
    oracle = rd.Oracle(mesh, profile)
    matrix = oracle.matrix(types, types)
    # A price for each signature, not for each pair.
    assert oracle.stats.batched_prices < oracle.stats.batched_pairs * 0.6
    rng = random.Random(str(axes))
    for _ in range(repetitions(25, 2000)):
        row, column = rng.randrange(len(types)), rng.randrange(len(types))
        plan = matrix.plan(row, column)
        assert plan.seconds == matrix.seconds[row, column], (types[row], types[column])
        rd.check(plan)
        single = oracle.cost(types[row], types[column]).seconds
        assert single >= matrix.seconds[row, column] * (1 - 1e-9)


def test_pairs_of_different_batches_that_ask_the_same_have_one_price() -> None:
    """An oracle that was asked other batches before answers like a fresh one."""
    for seed in range(repetitions(2, 100)):
        rng = random.Random(seed)
        mesh = rd.Mesh(a=rng.choice((2, 3, 4)), b=4, c=rng.choice((1, 2)))
        profile = rng.choice((None, "dgx-h100", THREE))
        oracle = rd.Oracle(mesh, profile, effort="fast")
        for _ in range(3):
            shape = [rng.choice((24, 48, 96, 144)) for _ in range(2)]
            types = list(partial_layouts(mesh, shape, rng.choice(("f32", "i64"))))
            some = rng.sample(types, min(len(types), 16))
            found = oracle.cost_matrix(some, some, closed=False)
            fresh = rd.Oracle(mesh, profile, effort="fast")
            assert (found == fresh.cost_matrix(some, some, closed=False)).all()
            pairs = [(rng.choice(some), rng.choice(some)) for _ in range(8)]
            for src, dst in pairs:
                plan = fresh.plan_through((src, dst), ["auto"], "auto")
                assert plan.seconds == found[some.index(src), some.index(dst)], (src, dst)


def test_digits_of_several_primes_ask_for_the_room_that_they_find() -> None:
    """On an axis of 12 it counts in which dimension there is room beside what is kept."""
    mesh = rd.Mesh(a=12, b=2)
    types = list(partial_layouts(mesh, (12, 8)))
    oracle = rd.Oracle(mesh, effort="fast")
    pairs = [(a, b) for a in types for b in types if a.partial or b.partial]
    matrix = oracle.cost_matrix(types, types, closed=False)
    alone = [oracle.cost_vector([a], [b])[0] for a, b in pairs]
    assert [matrix[types.index(a), types.index(b)] for a, b in pairs] == alone


def test_what_a_bound_leaves_out_of_a_matrix_is_not_cheaper() -> None:
    """Without its searches, a single answer looks at no plan that is cheaper than the matrix."""
    mesh = rd.Mesh(a=2, b=4)
    rng = random.Random(3)
    for profile in (None, "dgx-h100"):
        oracle = rd.Oracle(mesh, profile)
        for side in (8, 1 << 14):
            types = list(partial_layouts(mesh, (side, side)))
            for _ in range(repetitions(3, 500)):
                pair = rng.choice(types), rng.choice(types)
                found = oracle.cost_matrix([pair[0]], [pair[1]])[0, 0]
                for name, plan in oracle.explain(*pair).alternatives:
                    if not isinstance(plan, str) and name.rsplit(" ")[-1] not in ("exact", "ends"):
                        assert found <= plan.seconds * (1 + 1e-9), (*map(str, pair), name)


def test_a_matrix_that_is_not_closed_has_the_prices_of_its_pairs() -> None:
    mesh = rd.Mesh(a=2, b=4)
    types = list(partial_layouts(mesh, (16, 16)))
    oracle = rd.Oracle(mesh, "dgx-h100")
    found = oracle.cost_matrix(types[:5], types[5:15], closed=False)
    assert found.shape == (5, 10)
    for row, column in ((0, 0), (2, 5), (4, 9)):
        ends = types[row], types[5 + column]
        assert found[row, column] == oracle.cost_matrix([ends[0]], [ends[1]])[0, 0]
    assert (oracle.cost_matrix(types[:5], types[5:15]) <= found * (1 + 1e-9)).all()


def test_oracles_and_matrices_pickle() -> None:
    mesh = rd.Mesh(a=2, b=4)
    types = list(partial_layouts(mesh, (16,)))
    oracle = rd.Oracle(mesh, "dgx-h100", "1MiB", capacity=7, effort="fast")
    matrix = oracle.matrix(types, types)
    again = pickle.loads(pickle.dumps(matrix))
    assert (again.seconds == matrix.seconds).all()
    assert again.plan(0, 3) == matrix.plan(0, 3)
    other = pickle.loads(pickle.dumps(oracle))
    assert other.cost(types[0], types[3]) == oracle.cost(types[0], types[3])
    assert (other.profile, other.memory_limit, other.effort) == (oracle.profile, 1 << 20, "fast")
    assert other.stats.capacity == 7
