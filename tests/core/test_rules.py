"""The typing rules: what each collective makes of a type, and what it refuses."""

from __future__ import annotations

import pytest

import redistrib as rd
from redistrib.synth.plan import collectives as c
from redistrib.synth.plan.data import make_plan
from redistrib.synth.plan.tables import PermuteTable, permute_table
from redistrib.types.digits import parse_device_digit as device
from redistrib.types.digits import parse_index_digit as index

MESH = rd.Mesh(x=2, y=4, z=2)


def placed(*texts: str) -> tuple:
    """Placements written `x:(1)2 0:(1)2`."""
    return tuple((device(d), index(i)) for d, i in (text.split() for text in texts))


def moves(*texts: str) -> tuple:
    """Moves written `x:(1)2 0:(1)2 1:(1)2`."""
    return tuple(
        c.Move(device(d), index(a), index(b)) for d, a, b in (text.split() for text in texts)
    )


def routes(*texts: str) -> tuple:
    """Routes written `x:(1)2 y:(1)2`."""
    return tuple((device(a), device(b)) for a, b in (text.split() for text in texts))


X, Z = device("x:(1)2"), device("z:(1)2")
SWAPPED = permute_table(*(rd.ArrayType.parse(t, MESH) for t in ("f32[8{x,z}]", "f32[8{z,x}]")))


@pytest.mark.parametrize(
    ("src", "step", "message"),
    [
        ("f32[8{x}]", c.DynamicSlice(placed("x:(1)2 0:(2)2")), "x:(1)2 is not free"),
        ("f32[8] sum{x}", c.DynamicSlice(placed("x:(1)2 0:(1)2")), "x:(1)2 is not free"),
        ("f32[8{x}]", c.DynamicSlice(placed("z:(1)2 0:(1)2")), "0:(1)2 is not local"),
        ("f32[6]", c.DynamicSlice(placed("y:(1)4 0:(1)4")), "has no index digit 0:(1)4"),
        ("f32[8]", c.DynamicSlice(placed("x:(1)2 1:(1)2")), "has no index digit 1:(1)2"),
        ("f32[8]", c.DynamicSlice(placed("x:(1)2 0:(1)4")), "has the size of what it owns"),
        ("f32[12{y}]", c.DynamicSlice(placed("x:(1)2 0:(6)2")), "0:(6)2 is not local"),
        ("f32[8{x}]", c.AllGather(placed("x:(1)2 0:(2)2")), "x:(1)2 owns 0:(1)2"),
        ("f32[8{x}]", c.AllGather(placed("z:(1)2 0:(1)2")), "z:(1)2 owns no index digit"),
        ("f32[8{x}, 8]", c.AllToAll(moves("x:(1)2 0:(2)2 1:(1)2")), "x:(1)2 owns 0:(1)2"),
        (
            "f32[8{x}, 8{z}]",
            c.AllToAll(moves("x:(1)2 0:(1)2 1:(1)2", "z:(1)2 1:(1)2 0:(1)2")),
            "1:(1)2 is not local",
        ),
        ("f32[8{x}]", c.CollectivePermute(routes("x:(1)2 z:(1)2")), "are a permutation"),
        (
            "f32[8{x}, 8{z}]",
            c.CollectivePermute(routes("x:(1)2 x:(1)2", "z:(1)2 x:(1)2")),
            "are a permutation",
        ),
        (
            "f32[8]",
            c.CollectivePermute(routes("x:(1)2 y:(1)4", "y:(1)4 x:(1)2")),
            "joins digits of one size",
        ),
        (
            "f32[8]",
            c.CollectivePermute(routes("y:(1)4 y:(1)4", "y:(2)2 y:(2)2")),
            "routes are nested",
        ),
        ("f32[8]", c.ReduceScatter(placed("x:(1)2 0:(1)2")), "x:(1)2 is not partial"),
        ("f32[8{z}] sum{x}", c.ReduceScatter(placed("x:(1)2 0:(1)2")), "0:(1)2 is not local"),
        ("f32[8{x}]", c.AllReduce((X,)), "x:(1)2 is not partial"),
        ("f32[8{x}]", c.ReplicatedToPartial((X,), "sum"), "x:(1)2 is not free"),
        ("f32[8] sum{x}", c.ReplicatedToPartial((Z,), "max"), "another reduction, max"),
        ("f32[8{x}]", c.ShardedToPartial(placed("x:(1)2 0:(2)2"), "sum"), "x:(1)2 owns 0:(1)2"),
        ("f32[8{z}] max{x}", c.ShardedToPartial(placed("z:(1)2 0:(1)2"), "sum"), "reduction, sum"),
        (
            "f32[8{x,z}]",
            c.CollectivePermute((), PermuteTable(SWAPPED.axes, (0, 0, 1, 3), SWAPPED.placements)),
            "are a permutation of its coordinates",
        ),
        (
            "f32[8{x,z}]",
            c.CollectivePermute((), PermuteTable(SWAPPED.axes, (0, 1, 2, 3), SWAPPED.placements)),
            "got a wrong source",
        ),
        ("f32[8{x}]", c.CollectivePermute((), SWAPPED), "keeps the tiles"),
        ("f32[8] sum{x}", c.Exchange((), mesh=rd.Mesh(x=2)), "is reduced before it goes"),
        ("f32[8] sum{x}", c.CollectivePermute((), SWAPPED), "no partial axis"),
    ],
)
def test_what_a_rule_refuses(src: str, step: c.Collective, message: str) -> None:
    with pytest.raises(rd.LayoutError) as error:
        step.apply(rd.ArrayType.parse(src, MESH))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("src", "step", "dst"),
    [
        ("f32[8{x}] sum{y}", c.Exchange(placed("z:(1)2 0:(1)2")), "f32[8{z}] sum{y}"),
        ("f32[8] sum{y}", c.AllReduce((device("y:(2)2"),)), "f32[8] sum{y:(1)2}"),
        (
            "f32[8{x}] max{z}",
            c.CollectivePermute(routes("x:(1)2 z:(1)2", "z:(1)2 x:(1)2")),
            "f32[8{z}] max{x}",
        ),
        ("f32[8{y}]", c.AllGather(placed("y:(2)2 0:(2)2")), "f32[8{y:(1)2}]"),
        ("f32[8{y}]", c.AllGather(placed("y:(1)2 0:(1)2")), "f32[8{_2,y:(2)2}]"),
    ],
)
def test_what_a_rule_makes_of_a_type(src: str, step: c.Collective, dst: str) -> None:
    assert step.apply(rd.ArrayType.parse(src, MESH)) == rd.ArrayType.parse(dst, MESH)


def test_the_steps_of_a_plan_end_in_its_target() -> None:
    src, dst = (rd.ArrayType.parse(text, MESH) for text in ("f32[8{x}]", "f32[8{z}]"))
    with pytest.raises(rd.LayoutError, match=r"end in f32\[8\{z\}\]; got f32\[8\]"):
        make_plan(src, dst, "auto", [c.AllGather(placed("x:(1)2 0:(1)2"))])


def test_a_table_leaves_tiles_where_they_are_wanted() -> None:
    mesh = rd.Mesh(x=6)
    src, dst = (rd.ArrayType.parse(text, mesh) for text in ("f32[2{x:(3)2}]", "f32[2{x:(1)2}]"))
    sources = permute_table(src, dst).sources
    stay = [at for at in range(6) if src.tile(at)[0].tolist() == dst.tile(at)[0].tolist()]
    assert [at for at in range(6) if sources[at] == at] == stay == [0, 2, 3, 5]


@pytest.mark.parametrize(
    ("src", "dst", "message"),
    [
        ("f32[8{x}]", "f32[8{x}]", "two types that differ; got f32[8{x}] twice"),
        ("f32[8{x}]", "f32[8{y}]", "their tiles differ"),
        ("f32[8{x}]", "f32[8{z}] sum{x}", "keeps the partial set"),
        ("f32[8{x}] sum{y}", "f32[8{z}] max{y}", "keeps the partial set"),
        ("f32[8{x}]", "f32[4{z}]", "one shape"),
    ],
)
def test_no_table_turns_a_type_into_one_with_other_tiles(src: str, dst: str, message: str) -> None:
    with pytest.raises(rd.LayoutError) as error:
        permute_table(*(rd.ArrayType.parse(text, MESH) for text in (src, dst)))
    assert message in str(error.value)
