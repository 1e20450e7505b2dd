"""Meshes, array types, their canonical form, text and semantics."""

from __future__ import annotations

import pickle
import random
import time
from collections.abc import Callable
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import redistrib as rd
from redistrib.types.digits import IndexDigit, divisors, inside, parse_index_digit, primes
from redistrib.types.equivalence import equivalent
from tests.generators import random_layout, random_mesh, random_pair

MESH = rd.Mesh(x=4, y=6, z=2)


def parse(text: str, mesh: rd.Mesh = MESH) -> rd.ArrayType:
    return rd.ArrayType.parse(text, mesh)


def tiles(t: rd.ArrayType) -> list[tuple[tuple[int, ...], ...]]:
    return [
        tuple(tuple(indices.tolist()) for indices in t.tile(position))
        for position in range(t.mesh.num_devices)
    ]


@pytest.mark.parametrize(
    ("given_text", "canonical"),
    [
        ("f32[8{x:(1)2,x:(2)2}]", "f32[8{x}]"),
        ("f32[8{x:(2)2,x:(1)2}]", "f32[8{x:(2)2,x:(1)2}]"),
        ("f32[48{_2,_2,x}]", "f32[48{_4,x}]"),
        ("f32[48{_2,_3,x}]", "f32[48{_6,x}]"),
        ("f32[8{x,_2}]", "f32[8{x}]"),
        ("f32[8{_1,x:(2)1,_1}]", "f32[8]"),
        ("f32[0{x}, 6{y}]", "f32[0, 6{y}]"),
        ("f32[0] sum{x}", "f32[0]"),
        ("float32[ 8 { x } ] sum{ z , y }", "f32[8{x}] sum{y,z}"),
        ("f32[8] max{y:(3)2,y:(1)3}", "f32[8] max{y}"),
        ("pred[]", "bool[]"),
        ("s8[4]", "i8[4]"),
    ],
)
def test_canonical_form(given_text: str, canonical: str) -> None:
    assert str(parse(given_text)) == canonical
    assert parse(given_text) == parse(canonical)


@pytest.mark.parametrize(
    ("digit", "whole", "is_inside"),
    [
        ((0, 2, 2), (0, 2, 6), True),
        ((0, 4, 3), (0, 2, 6), True),
        ((0, 4, 6), (0, 2, 6), False),  # begins inside, ends below
        ((0, 1, 4), (0, 2, 6), False),  # begins above
        ((0, 3, 2), (0, 2, 6), False),  # overlaps, not nested
        ((1, 2, 6), (0, 2, 6), False),
    ],
)
def test_a_part_of_a_digit_begins_and_ends_in_it(
    digit: tuple[int, int, int], whole: tuple[int, int, int], is_inside: bool
) -> None:
    assert inside(IndexDigit(*digit), IndexDigit(*whole)) == is_inside


@given(st.randoms(use_true_random=False))
def test_text_and_repr_round_trip(rng: random.Random) -> None:
    for t in random_pair(rng.choice):
        assert rd.ArrayType.parse(str(t), t.mesh) == t
        assert eval(repr(t), {"ArrayType": rd.ArrayType, "Mesh": rd.Mesh}) == t
        assert pickle.loads(pickle.dumps(t)) == t


@given(st.randoms(use_true_random=False))
def test_types_are_equal_iff_every_device_holds_the_same(rng: random.Random) -> None:
    mesh = random_mesh(rng.choice)
    if mesh.num_devices > 24:
        return
    # Factors of few kinds over one shape, so that equal meanings with other factors do occur.
    shape = [rng.choice([4, 6, 8, 12, 24])]
    found = []
    for _ in range(6):
        dims, _, _ = random_layout(rng.choice, mesh, 1, partial=False)
        try:
            found.append(rd.ArrayType(mesh, "f32", shape, dims))
        except rd.LayoutError:
            continue
    for a in found:
        for b in found:
            assert (a == b) == (tiles(a) == tiles(b))


@given(st.randoms(use_true_random=False))
def test_a_tile_has_the_shape_that_the_type_says_and_replicas_cover_the_array(
    rng: random.Random,
) -> None:
    t, _ = random_pair(rng.choice, partial=False)
    if t.size > 4096:
        return
    holders = np.zeros(t.shape, dtype=int)
    for position in range(t.mesh.num_devices):
        indices = t.tile(position)
        assert tuple(map(len, indices)) == t.tile_shape
        if t.shape:
            holders[np.ix_(*indices)] += 1
    if t.shape and t.size:
        assert (holders == t.mesh.num_devices * t.tile_size // t.size).all()


def test_the_tile_of_each_kind_of_factor() -> None:
    mesh = rd.Mesh(x=2, y=2)

    def dim0(text: str, position: int) -> list[int]:
        return parse(text, mesh).tile(position)[0].tolist()  # type: ignore[no-any-return]

    assert dim0("f32[8{x}]", 2) == [4, 5, 6, 7]
    assert dim0("f32[8{x,y}]", 1) == [2, 3]
    assert dim0("f32[8{y,x}]", 1) == [4, 5]
    assert dim0("f32[8{_2,x}]", 2) == [2, 3, 6, 7]  # block-cyclic
    assert dim0("f32[8{_4,x}]", 0) == [0, 2, 4, 6]  # cyclic
    assert rd.ArrayType.parse("f32[]", mesh).tile(3) == ()


def test_device_order_is_part_of_the_mesh_and_not_of_positions() -> None:
    mesh = rd.Mesh({"x": 2}, devices=[1, 0])
    assert mesh != rd.Mesh(x=2)
    assert rd.Mesh({"x": 2}, devices=[0, 1]) == rd.Mesh(x=2)
    assert parse("f32[4{x}]", mesh).tile(0)[0].tolist() == [0, 1]
    assert eval(repr(mesh), {"Mesh": rd.Mesh}) == mesh


def test_degenerate_types() -> None:
    one = rd.Mesh()
    assert one.num_devices == 1
    assert str(rd.ArrayType(one, "bf16", (), [])) == "bf16[]"
    assert parse("f32[8{x}]", rd.Mesh(x=1)) == parse("f32[8]", rd.Mesh(x=1))
    wide = rd.Mesh({f"a{i}": 2 for i in range(12)})
    t = rd.ArrayType(wide, "f32", (4096,), [[f"a{i}" for i in reversed(range(12))]])
    assert t.tile_shape == (1,)
    assert t.tile(1)[0].tolist() == [2048]


def test_equivalence_across_meshes() -> None:
    flat, square = rd.Mesh(x=8), rd.Mesh(a=2, b=4)
    assert equivalent(parse("f32[8{x}]", flat), parse("f32[8{a,b}]", square))
    assert equivalent(parse("f32[8{x:(1)2}]", flat), parse("f32[8{a}]", square))
    assert not equivalent(parse("f32[8{x}]", flat), parse("f32[8{b,a}]", square))
    turned = rd.Mesh({"b": 4, "a": 2}, devices=[0, 4, 1, 5, 2, 6, 3, 7])
    assert equivalent(parse("f32[8{a}]", turned), parse("f32[8{a}]", square))
    assert not equivalent(parse("f32[8{a}] sum{b}", turned), parse("f32[8{a}]", square))
    assert equivalent(parse("f32[8{a}] sum{b}", turned), parse("f32[8{a}] sum{b}", square))
    assert not equivalent(parse("f32[8] sum{b}", turned), parse("f32[8] sum{a}", square))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("f32[8{q}]", "unknown axis 'q'; the mesh has: x, y, z"),
        (
            "f32[8{x},8{x}]",
            "an axis is used once over all dimensions and the partial set; got x and x",
        ),
        ("f32[8{x}] sum{x:(2)2}", "used once over all dimensions and the partial set"),
        ("f32[9{x}]", "got 9{x} with product 4; nearest legal sizes: 8 and 12"),
        ("f32[3{x}]", "got 3{x} with product 4; nearest legal size: 4"),
        ("f32[8{x:(1)3}]", "m*k to divide the size of the axis, 4; got x:(1)3"),
        ("f32[6{y:(1)2}, 6{y:(3)2}]", "bounds [1, 2, 3, 6]"),
    ],
)
def test_illegal_types(text: str, message: str) -> None:
    with pytest.raises(rd.LayoutError) as error:
        parse(text)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("f32[8{x]", 8, "expected ',' or '}', got ']'"),
        ("f32[8{x},", 10, "expected the size of a dimension, got the end of the text"),
        ("f32 8", 5, "expected '['"),
        ("f77[8]", 1, "unknown dtype 'f77'; known: bool, i8"),
        ("f32[8{x}] mean{y}", 11, "expected one of sum, prod, max, min, got 'mean'"),
        ("f32[8{x:(2}]", 8, "expected ',' or '}', got ':'"),
        ("f32[8] sum{y} z", 15, "expected the end, got 'z'"),
        ("", 1, "expected a dtype, got the end of the text"),
        ("f32[8{,x}]", 7, "expected an axis, a sub-axis x:(m)k or a local factor _k"),
        ("f32[\uff18]", 5, "expected the size of a dimension, got '\uff18'"),  # a full-width 8
        ("f32[8{_\uff12}]", 8, "expected ',' or '}', got '\uff12'"),
        ("f32[8{x:(1)\uff12}]", 8, "expected ',' or '}', got ':'"),
    ],
)
def test_malformed_text_names_the_column(text: str, column: int, message: str) -> None:
    with pytest.raises(rd.TypeSyntaxError) as error:
        parse(text)
    assert error.value.column == column
    assert f"column {column}: " in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rd.Mesh(x=0), "positive integer; got x=0"),
        (lambda: rd.Mesh({"_3": 2}), "got '_3'"),
        (lambda: rd.Mesh([("x", 2), ("x", 2)]), "got 'x' twice"),
        (lambda: rd.Mesh({"x": 2}, devices=[0]), "needs 2 device ids; got 1"),
        (lambda: rd.Mesh({"x": 2}, devices=[0, 0]), "distinct and not negative"),
        (lambda: rd.ArrayType(MESH, "f32", (8,), [(), ()]), "got 2 lists"),
        (lambda: rd.ArrayType(MESH, "f32", (-8,), [()]), "not negative"),
        (lambda: rd.ArrayType(MESH, "f32", (8,), [()], ["x"], "mean"), "got 'mean'"),
        (lambda: rd.ArrayType(MESH, "f32", (8,), [()], ["_2"]), "unknown axis '_2'"),
        (lambda: rd.ArrayType(MESH, object(), (8,)), "unknown dtype"),
        (lambda: MESH.coordinates(48), "0 to 47; got 48"),
    ],
)
def test_illegal_construction(make: object, message: str) -> None:
    with pytest.raises(rd.LayoutError) as error:
        make()  # type: ignore[operator]
    assert message in str(error.value)
    assert isinstance(error.value, rd.RedistribError)


LONG = "9" * 5000  # more than Python reads


@pytest.mark.parametrize(
    ("text", "column"),
    [
        (f"f32[{LONG}]", 5),
        (f"f32[8{{x:({LONG})2}}]", 10),
        (f"f32[8{{x:(1){LONG}}}]", 12),
        (f"f32[8{{x,_{LONG}}}]", 9),
        (f"f32[8] sum{{x:(1){LONG}}}", 17),
    ],
)
def test_numbers_that_python_does_not_read_are_refused(text: str, column: int) -> None:
    with pytest.raises(rd.TypeSyntaxError) as error:
        parse(text)
    assert error.value.column == column
    assert "at most 640 digits, got '99999999... of 5000'" in str(error.value)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: rd.Mesh.parse(f"x={LONG}"), rd.TypeSyntaxError),
        (lambda: rd.ArrayType(MESH, "f32", (8,), [(f"_{LONG}",)]), rd.LayoutError),
        (lambda: rd.ArrayType(MESH, "f32", (8,), [(f"x:(1){LONG}",)]), rd.LayoutError),
        (lambda: parse_index_digit(f"{LONG}:(1)2"), rd.LayoutError),
    ],
)
def test_so_are_they_elsewhere(make: Callable[[], object], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        make()


@pytest.mark.parametrize("text", ["x=2,y:3", "x=2,y=\uff13"])
def test_malformed_mesh_text(text: str) -> None:
    with pytest.raises(rd.TypeSyntaxError) as error:
        rd.Mesh.parse(text)
    assert error.value.column == 5
    assert "NAME=SIZE" in str(error.value)


def test_sizes_are_factored_whatever_their_primes() -> None:
    """Products of two primes of 30 bits, squares of primes, and a large prime in no time."""
    rng = random.Random(0)
    small = [p for p in range(2, 2000) if all(p % d for d in range(2, int(p**0.5) + 1))]
    large = [1073741789, 1073741783, 2**31 - 1, 1000000007, 1152921504606846883]
    start = time.process_time()
    for _ in range(200):
        wanted = sorted(rng.choices(small, k=rng.randrange(6)))
        assert primes(prod(wanted)) == wanted
    for p in large:
        assert primes(p) == [p]
        assert primes(6 * p) == [2, 3, p]
    for p, q in ((large[0], large[1]), (large[3], large[3]), (1031, 1031), (1031, 1033)):
        assert primes(p * q) == sorted((p, q))
    assert primes(4611686018427387846) == [2, 3, 3, 1289, 198762435067123]
    assert primes(1194649) == [1093, 1093]  # passes for a prime with base 2 alone
    assert primes(1031**2 * 1033 * 1039) == [1031, 1031, 1033, 1039]
    assert divisors(2 * large[2]) == [1, 2, large[2], 2 * large[2]]
    assert time.process_time() - start < 5


@pytest.mark.parametrize("n", [18 * 2147483647 * 11, 18 * 1073741789, 18 * 192153584101141])
def test_sizes_with_large_primes_are_planned(n: int) -> None:
    mesh = rd.Mesh(x=2, y=3)
    start = time.process_time()
    for text in (f"f32[{n}, 6{{x}}]", f"f32[{n}{{x}}]", f"f32[{n}{{_3,x}}]"):
        for strategy in ("auto", "collectives", "direct", "exact"):
            src, dst = (rd.ArrayType.parse(t, mesh) for t in (text, text.replace("x", "y")))
            assert rd.check(rd.plan(src, dst, strategy=strategy))
    assert time.process_time() - start < 5
