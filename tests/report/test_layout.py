"""The blocks of a type as a grid, against the semantics of the type."""

from __future__ import annotations

import random

import pytest

import redistrib as rd
from redistrib.report.layout import MAX_PLACES, grid, picture
from tests.generators import random_pair
from tests.repetitions import repetitions

MESH = rd.Mesh(x=2, y=4)
TYPES = (
    "f32[]",
    "f32[0{x}, 3]",
    "f32[8]",
    "f32[8{_2,x}]",
    "f32[8{x}, 4, 4{y:(2)2}, 2{y:(1)2}]",
    "f32[8{x}] sum{y}",
    "f32[10{y}:ceil, 5{x}:balanced]",
    "f32[5{y}:ceil]",
    "f32[13{_2,x,_4}:ceil, 3]",
    "f32[10{x,y}:nested, 4]",
    "f32[10{y}:sizes(3,3,4,0)]",
)


def check_cells(t: rd.ArrayType) -> int:
    """Every cell names the devices that hold its first element; how many cells there are."""
    drawn, count = grid(t), 0
    edges = drawn.down, drawn.across
    for place, row in zip(drawn.down.places, drawn.cells, strict=True):
        for column, cell in zip(drawn.across.places, row, strict=True):
            if cell is None:
                assert place.gap or column.gap
                continue
            first = {}
            for edge, at in zip(edges, (place, column), strict=True):
                for dim, text in zip(edge.dims, at.indices.split(", "), strict=False):
                    start, stop = map(int, text.split(":"))
                    if start < stop:  # a rule may leave a block without any index
                        first[dim] = start
            if len(first) < sum(len(edge.dims) for edge in edges):
                continue
            held = [
                device
                for position, device in enumerate(t.mesh.ids)
                if all(index in t.tile(position)[dim] for dim, index in first.items())
            ]
            assert cell.devices == tuple(sorted(held))
            assert cell.count == len(held) > 0
            count += 1
    return count


@pytest.mark.parametrize("text", TYPES)
def test_cells_are_held_by_the_devices_that_they_name(text: str) -> None:
    assert check_cells(rd.ArrayType.parse(text, MESH))


def test_cells_of_random_types() -> None:
    choose = random.Random(0).choice
    for _ in range(repetitions(100, 5000)):
        check_cells(random_pair(choose)[0])


@pytest.mark.parametrize("axes", ["x=64,y=64", "x=16,y=16,z=2", "x=2,y=256", "x=1048576,y=4"])
def test_a_grid_stays_small_on_many_devices(axes: str) -> None:
    mesh = rd.Mesh(axes)
    n = mesh.num_devices
    t = rd.ArrayType.parse(f"f32[{n}{{x}}, {n}{{y}}, 7]", mesh)
    drawn = grid(t)
    assert len(drawn.down.places) <= MAX_PLACES
    assert len(drawn.across.places) <= MAX_PLACES
    last = drawn.down.places[-1], drawn.across.places[-1]
    assert [place.indices.split(":")[1] for place in last] == [str(n), str(n)]
    if n < 1 << 10:
        assert check_cells(t)


def test_many_factors_stay_small() -> None:
    mesh = rd.Mesh({f"a{n}": 2 for n in range(8)})
    t = rd.ArrayType(mesh, "f32", (256,), [tuple(mesh.sizes)])
    assert len(grid(t).across.places) <= 16
    assert check_cells(t)


def test_pictures() -> None:
    assert picture(rd.ArrayType.parse("f32[8{x}, 4] sum{y}", MESH)) == "\n".join(
        [
            "f32[8{x}, 4] sum{y}",
            "  0:4  0-3",
            "  4:8  4-7",
            "  each block is a partial sum on its devices",
        ]
    )
    reordered = rd.Mesh({"x": 2}, devices=[5, 3])
    shown = picture(rd.ArrayType.parse("f32[2{x}]", reordered))
    assert shown.splitlines()[-1].split() == ["5", "3"]
    many = picture(rd.ArrayType.parse("f32[128{x}]", rd.Mesh(x=128)))
    assert many.splitlines()[-1].split() == ["0", "1", "...", "127"]
