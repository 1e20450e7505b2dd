"""Atoms: a target as a disjoint union of strided copies."""

from __future__ import annotations

import random
from itertools import product
from math import prod

import numpy as np
import pytest

from redistrib.models.interpret import Shape
from redistrib.models.normal_form import NormalForms
from redistrib.models.weight_map import WeightMap
from redistrib.types.dtypes import dtype_name, numpy_dtype
from tests.models.random_maps import RandomMaps


def random_case(seed: int, depth: int):
    maps = RandomMaps(random.Random(seed))
    expression, shape, dtype = maps.expression(depth)
    rng = np.random.default_rng(seed)
    arrays = {
        name: rng.integers(-9, 9, shape).astype(numpy_dtype(kind))
        for name, (shape, kind) in maps.shapes.items()
    }
    return WeightMap({"t": expression}), arrays, shape, dtype


def target_elements(atom, shape):
    """The row-major number of every element in the target, digits first to last."""
    steps = [(digit.size, digit.dim, digit.stride) for digit in atom.digits]
    return row_major(shape, atom.offset, steps)


def source_elements(atom, shape):
    """The row-major number in the source of every element, in the same order."""
    steps = [(digit.size, digit.source_dim, digit.source_stride) for digit in atom.digits]
    return row_major(shape, atom.source_offset, steps)


def row_major(shape, offset, steps):
    weights = [prod(shape[dim + 1 :]) for dim in range(len(shape))]
    numbers = np.full(1, sum(w * o for w, o in zip(weights, offset, strict=True)))
    for size, dim, stride in steps:
        weight = weights[dim] * stride if stride else 0
        numbers = (numbers[:, None] + np.arange(size) * weight).reshape(-1)
    return numbers


def copied(form, arrays):
    """The array that atoms make, and how often each element is written."""
    (array,) = form.parts
    result = np.zeros(array.shape, numpy_dtype(array.dtype))
    writes = np.zeros(array.shape, int)
    for atom in array.atoms:
        values = 0
        if atom.source is not None:
            taken = arrays[form.sources[atom.source][0]]
            values = taken.reshape(-1)[source_elements(atom, taken.shape)]
            for dtype in atom.dtypes:
                values = values.astype(numpy_dtype(dtype))
        target = target_elements(atom, array.shape)
        result.reshape(-1)[target] = values
        np.add.at(writes.reshape(-1), target, 1)
    return result, writes


@pytest.mark.parametrize("depth", [0, 1, 2, 3, 5])
def test_atoms_mean_what_numpy_means_and_write_every_element_once(depth: int) -> None:
    for seed in range(120):
        w, arrays, shape, dtype = random_case(seed, depth)
        target = w.targets(arrays)["t"]
        shapes = {n: Shape(a.shape, dtype_name(a.dtype)) for n, a in arrays.items()}
        result, writes = copied(NormalForms(shapes).of(target), arrays)
        meant = w(arrays)["t"]
        assert (meant.shape, meant.dtype) == (shape, numpy_dtype(dtype)), seed
        assert np.array_equal(result, meant), seed
        assert (writes == 1).all(), seed
        assert w.shapes({n: (a.shape, a.dtype) for n, a in arrays.items()})["t"] == (shape, dtype)


def test_interleaved_halves_are_two_atoms() -> None:
    w = WeightMap.parse('t = rearrange(stack(0, a, b), "two n -> (n two)")')
    shapes = {name: Shape((1000,), "f32") for name in "ab"}
    form = NormalForms(shapes).of(w.targets(shapes)["t"])
    assert [
        (form.sources[a.source][0], a.digits[0].stride, a.offset) for a in form.parts[0].atoms
    ] == [
        ("a", 2, (0,)),
        ("b", 2, (1,)),
    ]


def test_grouped_queries_are_three_atoms() -> None:
    text = """
        qkv = rearrange(concat(1,
            rearrange(q, "(g j d) h -> g (j d) h", g=8, d=128),
            rearrange(k, "(g d) h -> g d h", d=128),
            rearrange(v, "(g d) h -> g d h", d=128)), "g r h -> (g r) h")
    """
    shapes = {"q": Shape((4096, 64), "bf16")} | {x: Shape((1024, 64), "bf16") for x in "kv"}
    form = NormalForms(shapes).of(WeightMap.parse(text).targets(shapes)["qkv"])
    assert form.parts[0].shape == (6144, 64)
    assert [(form.sources[a.source][0], a.offset, a.size) for a in form.parts[0].atoms] == [
        ("q", (0, 0), 4096 * 64),
        ("k", (512, 0), 1024 * 64),
        ("v", (640, 0), 1024 * 64),
    ]


def test_layers_share_their_atoms() -> None:
    shapes = {f"{x}.{i}": Shape((4, 2), "f32") for x in "ab" for i in range(3)}
    w = WeightMap.parse("t.{i} = concat(0, a.{i}, b.{i})")
    forms = NormalForms(shapes)
    made = [forms.of(target) for target in w.targets(shapes).values()]
    assert [form.sources for form in made] == [((f"a.{i}", 0), (f"b.{i}", 0)) for i in range(3)]
    assert all(form.parts is made[0].parts for form in made)
    shapes["b.1"] = Shape((5, 2), "f32")
    assert len({NormalForms(shapes).of(t).parts[0].shape for t in w.targets(shapes).values()}) == 2


def test_layers_that_take_one_source_twice_have_atoms_of_their_own() -> None:
    arrays = {f"a.{i}": np.arange(3) + 10 * i for i in range(3)}
    shapes = {name: Shape(a.shape, dtype_name(a.dtype)) for name, a in arrays.items()}
    for names in product(("a.{i}", "a.{i+1}", "a.0", "a.1"), repeat=3):
        w = WeightMap.parse(f"t.{{i}} = concat(0, {', '.join(names)}) for {{i}} in 0:2")
        forms, meant = NormalForms(shapes), w(arrays)
        for name, target in w.targets(arrays).items():
            result, _ = copied(forms.of(target), arrays)
            assert np.array_equal(result, meant[name]), (names, name)


def test_a_slice_of_whole_steps_is_one_atom() -> None:
    shapes = {"a": Shape((8, 6), "f32")}
    for text in ("a[2:7]", "a[1:, 2:5]", "a[::2]", 'rearrange(a, "(x y) z -> x y z", y=2)[1:3]'):
        w = WeightMap.parse(f"t = {text}")
        (array,) = NormalForms(shapes).of(w.targets(shapes)["t"]).parts
        assert len(array.atoms) == 1, text


def test_layers_of_a_stack_have_atoms_of_their_own() -> None:
    shapes = {"scanned": Shape((4, 3, 2), "f32")}
    w = WeightMap.parse("t.{i} = scanned[:, {i}] for {i} in 0:3")
    forms = NormalForms(shapes)
    made = [forms.of(target).parts[0].atoms[0] for target in w.targets(shapes).values()]
    assert [atom.source_offset for atom in made] == [(0, 0, 0), (0, 1, 0), (0, 2, 0)]
