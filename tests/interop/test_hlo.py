"""HLO sharding strings against jaxlib's own HloSharding."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from math import prod
from typing import Any

import numpy as np
import pytest

import redistrib as rd
from redistrib.interop.hlo import format_hlo, parse_hlo, parse_hlo_tuple
from tests.interop.notations import with_devices

STRINGS = 2000
MESH = rd.Mesh(x=2, y=4)
MAX = ' metadata={op_type="sdy::reduction_op" op_name="MAX"}'


def ask(strings: list[str]) -> list[dict[str, Any]]:
    """What jaxlib makes of these strings."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.interop.hlo_worker"],
        input=json.dumps(strings),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def random_sharding(rng: random.Random) -> tuple[str, int]:
    """A v1 or v2 string, and the rank of its arrays."""
    rank = rng.choice((1, 2, 2, 3))
    kinds = rng.choice(([], ["replicated"], ["unreduced"], ["unreduced", "replicated"]))
    sizes = [rng.choice((1, 2, 2, 3, 4)) for _ in range(rank + len(kinds))]
    sizes[0] = max(sizes[0], 2)  # on one device jaxlib wants {maximal device=0}
    count = prod(sizes)
    if rng.random() < 0.4:
        devices = rng.sample(range(count), count)
        listed = ",".join(map(str, devices))
    else:
        factors, left = [], count
        while left > 1:
            factor = rng.choice([f for f in range(2, left + 1) if left % f == 0])
            factors.append(factor)
            left //= factor
        factors = factors or [1]
        listed = f"<=[{','.join(map(str, factors))}]"
        if len(factors) > 1:
            order = rng.sample(range(len(factors)), len(factors))
            listed += f"T({','.join(map(str, order))})"
    tail = ""
    if kinds == ["replicated"] and rng.random() < 0.5:
        tail = " last_tile_dim_replicate"
    elif kinds:
        tail = f" last_tile_dims={{{', '.join(kinds)}}}"
    return f"{{devices=[{','.join(map(str, sizes))}]{listed}{tail}}}", rank


def check_tiles(t: rd.ArrayType, sizes: list[int], devices: list[int]) -> None:
    """Every device holds the tile that the assignment gives it."""
    ids = list(range(len(devices))) if t.mesh.devices is None else list(t.mesh.devices)
    for coordinate, device in zip(np.ndindex(*sizes), devices, strict=True):
        held = t.tile(ids.index(device))
        for n, k, c, indices in zip(t.shape, sizes, coordinate, held, strict=False):
            assert indices.tolist() == list(range(c * n // k, (c + 1) * n // k))


def test_device_assignment_agrees_with_jaxlib() -> None:
    rng = random.Random(7)
    drawn = [random_sharding(rng) for _ in range(STRINGS)]
    on_flat_mesh = 0
    for (text, rank), answer in zip(drawn, ask([text for text, _ in drawn]), strict=True):
        # jaxlib merges the last tile dimensions; those of the array stay.
        sizes, devices = answer["sizes"], answer["devices"]
        shape = [2 * k for k in sizes[:rank]]
        shape += [2] * (rank - len(shape))
        t = parse_hlo(text, None, shape, "f32", num_devices=len(devices))
        check_tiles(t, sizes, devices)
        written = parse_hlo(format_hlo(t), t.mesh, shape, "f32")
        assert written == t
        try:
            flat = parse_hlo(text, rd.Mesh(d=len(devices)), shape, "f32")
        except rd.LayoutError:
            continue
        check_tiles(flat, sizes, devices)
        assert prod(d.size for d in flat.partial) == prod(d.size for d in t.partial)
        on_flat_mesh += 1
    assert on_flat_mesh > STRINGS // 3


def test_jaxlib_reads_what_is_written_and_the_other_way_round() -> None:
    rng = random.Random(8)
    written: list[tuple[str, rd.ArrayType]] = []
    while len(written) < 600:
        t = with_devices(rng.choice)
        if t.reduction not in (None, "sum"):
            continue  # jaxlib 0.10 drops metadata, and does not read `unreduced=max{...}` yet
        for version in (1, 2, 3):
            try:
                written.append((format_hlo(t, version), t))
            except rd.LayoutError:
                break
    for (text, t), answer in zip(written, ask([text for text, _ in written]), strict=True):
        if "<=" in text:
            assert answer["text"] == text
        assert parse_hlo(answer["text"], t.mesh, t.shape, t.dtype) == t, text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{devices=[2,4]<=[8]}", "f32[8{x}, 8{y}]"),
        ("{devices=[4,2]<=[2,4]T(1,0)}", "f32[8{y}, 8{x}]"),
        ("{devices=[8,1]<=[2,4]T(1,0)}", "f32[8{y,x}, 8]"),
        ("{devices=[2,1,4]<=[8] last_tile_dim_replicate}", "f32[8{x}, 8]"),
        ("{devices=[1,4,2]<=[2,4]T(1,0) last_tile_dim_replicate}", "f32[8, 8{y}]"),
        ("{devices=[2,1,4]<=[8] last_tile_dims={unreduced}}", "f32[8{x}, 8] sum{y}"),
        ("{devices=[1,1,2,4]<=[8] last_tile_dims={unreduced, replicated}}", "f32[8, 8] sum{x}"),
        ("{devices=[4,2]<=[8]}", "f32[8{x,y:(1)2}, 8{y:(2)2}]"),
        ("{devices=[2,4]0,1,2,3,4,5,6,7}", "f32[8{x}, 8{y}]"),
        ('{devices=[2,4]<=[8] metadata={op_name="a"}}', "f32[8{x}, 8{y}]"),
        ("{replicated}", "f32[8, 8]"),
        ("{unreduced}", "f32[8, 8] sum{x,y}"),
        ("{mesh['x'=2,'y'=4], [{'x'}, {'y'}]}", "f32[8{x}, 8{y}]"),
        ("{mesh['x'=2,'y'=4], replicated}", "f32[8, 8]"),
        ("{mesh['x'=2,'y'=4], [{'y':(2)2}, {}], replicated={'x'}}", "f32[8{y:(2)2}, 8]"),
        ("{mesh['x'=2,'y'=4], [{}, {'y'}], unreduced={'x'}}", "f32[8, 8{y}] sum{x}"),
        ("{mesh['x'=2,'y'=4], [{}, {'y'}], unreduced=max{'x'}}", "f32[8, 8{y}] max{x}"),
        (
            "{mesh['x'=2,'y'=4], [{'y'}, {}], unreduced=min{'x'}}",
            "f32[8{y}, 8] min{x}",
        ),
        ("{mesh['x'=2,'y'=4], [{'y'}, {}], metadata={op_name=\"{\"}}", "f32[8{y}, 8]"),
        (f"{{devices=[2,1,4]<=[8] last_tile_dims={{unreduced}}{MAX}}}", "f32[8{x}, 8] max{y}"),
        (f"{{unreduced{MAX}}}", "f32[8, 8] max{x,y}"),
        (f"{{unreduced{MAX.replace('MAX', 'SUM')}}}", "f32[8, 8] sum{x,y}"),
        (f"{{replicated{MAX}}}", "f32[8, 8]"),
        ('{unreduced metadata={op_name="MAX" op_type="sdy::reduction_op"}}', "f32[8, 8] max{x,y}"),
        (
            '{unreduced metadata={{op_name="a" source_line=3}, {op_type="sdy::reduction_op" '
            'op_name="MIN"}}}',
            "f32[8, 8] min{x,y}",
        ),
    ],
)
def test_known_strings(text: str, expected: str) -> None:
    assert str(parse_hlo(text, MESH, (8, 8), "f32")) == expected


@pytest.mark.parametrize(
    ("sizes", "shape", "text", "expected"),
    [
        # jax-ml/jax#18591, alpa-projects/alpa#701: what users saw before a rematerialisation
        ((64, 4), (512, 256), "{devices=[256,1]<=[256]}", "f32[512{a,b}, 256]"),
        (
            (64, 4),
            (512, 256),
            "{devices=[1,64,4]<=[256] last_tile_dim_replicate}",
            "f32[512, 256{a}]",
        ),
        ((2, 2), (8, 1, 1, 4), "{devices=[4,1,1,1]0,1,2,3}", "f32[8{a,b}, 1, 1, 4]"),
        ((2, 2), (8, 1, 1, 4), "{devices=[2,1,1,2]0,1,2,3}", "f32[8{a}, 1, 1, 4{b}]"),
    ],
)
def test_strings_from_reports(
    sizes: tuple[int, int], shape: tuple[int, ...], text: str, expected: str
) -> None:
    mesh = rd.Mesh(a=sizes[0], b=sizes[1])
    assert str(parse_hlo(text, mesh, shape, "f32")) == expected


def test_open_dimensions_of_version_3_are_a_pattern_unless_closed() -> None:
    text = "{mesh['x'=2,'y'=4], [{'x', ?}, {?}], replicated={'y'}}"
    with pytest.raises(rd.TypeSyntaxError, match="an open one is a pattern"):
        parse_hlo(text, MESH, (8, 8), "f32")
    assert str(parse_hlo(text, MESH, (8, 8), "f32", closed=True)) == "f32[8{x}, 8]"


@pytest.mark.parametrize(
    ("reduction", "written"),
    [
        ("max", [f"{{devices=[2,1,4]<=[8] last_tile_dims={{unreduced}}{MAX}}}"]),
        ("max", [f"{{unreduced{MAX}}}"]),
        ("max", ["{mesh['x'=2,'y'=4], [{'x'}, {}], unreduced=max{'y'}}"]),
    ],
)
def test_reductions_are_written_as_they_are_read(reduction: str, written: list[str]) -> None:
    for text in written:
        t = parse_hlo(text, MESH, (8, 8), "f32")
        assert t.reduction == reduction
        assert text in [format_hlo(t, version) for version in (2, 3)]


def test_version_3_has_its_own_mesh() -> None:
    t = parse_hlo("{mesh['x'=2,'y'=4], device_ids=([4,2]T(1,0)), [{'x'}, {}]}", None, (8, 8), "f32")
    assert t.mesh == rd.Mesh({"x": 2, "y": 4}, devices=[0, 2, 4, 6, 1, 3, 5, 7])
    assert str(t) == "f32[8{x}, 8]"


def test_a_string_without_devices_needs_a_mesh_or_their_number() -> None:
    assert parse_hlo("{replicated}", None, (8,), "f32", num_devices=4).mesh == rd.Mesh(axis_0=4)
    with pytest.raises(rd.TypeSyntaxError, match="column 2: expected devices; this names none"):
        parse_hlo("{replicated}", None, (8,), "f32")


def test_one_device_is_maximal() -> None:
    t = parse_hlo("{maximal device=3}", None, (8, 8), "f32")
    assert t.mesh == rd.Mesh(devices=[3])
    assert parse_hlo("{maximal_mesh[device_id=3]}", None, (8, 8), "f32") == t
    assert format_hlo(t) == "{maximal device=3}"


@pytest.mark.parametrize("sizes", ["999999999,999999999", "1," * 99 + "1"])
def test_no_string_asks_for_much_memory(sizes: str) -> None:
    with pytest.raises(rd.TypeSyntaxError, match="at most 32 sizes and 1048576 devices"):
        parse_hlo(f"{{devices=[8]<=[{sizes}]}}", None, (8,), "f32")


def test_tuples() -> None:
    text = "{{replicated}, {devices=[2,4]<=[8]}}"
    found = parse_hlo_tuple(text, MESH, [(4,), (8, 8)], ["f32", "s8"])
    assert [str(t) for t in found] == ["f32[4]", "i8[8{x}, 8{y}]"]
    for shapes in ([(4,)], [(4,), (8, 8), (2,)]):
        with pytest.raises(rd.TypeSyntaxError, match="one per array"):
            parse_hlo_tuple(text, MESH, shapes, ["f32"] * len(shapes))
