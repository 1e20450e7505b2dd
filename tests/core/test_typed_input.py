"""Typed input is checked where it enters: the answer is right, or a RedistribError.

Every public constructor and call is given values of many kinds in the place of each argument.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from typing import Any

import numpy as np
import pytest

import redistrib as rd
from redistrib.interop import alpa, colossalai, dtensor, hlo, jax_text, scalapack, shardy
from redistrib.types.digits import DeviceDigit, IndexDigit, Local
from redistrib.types.equivalence import equivalent, on_mesh

MESH = rd.Mesh(x=2, y=4)
T = rd.ArrayType.parse("f32[8{x}, 8]", MESH)
U = rd.ArrayType.parse("f32[8, 8{x}]", MESH)
ORACLE = rd.Oracle(MESH)


class Strange:
    """An object with the attributes of others, of the wrong kinds."""

    mesh = shape = spec = dtype = axes = size = 3

    def __repr__(self) -> str:
        raise RuntimeError("no text")


class Hashless(str):
    """A text that is a text and no key."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


VALUES: dict[str, Callable[[], Any]] = {
    **{
        repr(value): partial(lambda v: v, value)
        for value in (
            None,
            True,
            False,
            0,
            1,
            -1,
            3,
            8.5,
            8.0,
            float("nan"),
            float("inf"),
            1j,
            10**30,
            "",
            "x",
            "xy",
            "88",
            "8",
            "é",
            "x\0y",
            "x=2",
            "x=2,",
            "f32",
            "f32[8{x}]",
            ">f4",
            "1GiB",
            "-1",
            "nan",
            "sum",
            "auto",
            "?",
            "[",
            "{",
            "_",
            "_0",
            "_8",
            "x:(1)2",
            "x:(0)2",
            "x:(1)",
            b"x",
            (),
            (1,),
            (8.5,),
            ("x",),
            ("x", 2),
            ("x", "y", "z"),
            ((8,), "f32"),
            [],
            ["xy"],
            [8.5],
            [True],
            [None],
            [[]],
            [["x"], ["x"]],
            [("x", 2)],
            {},
            {"x": 2},
            {"x": 2.5},
            {3: "x"},
            {1, 2},
            frozenset("xy"),
            range(3),
            Ellipsis,
            Decimal(8),
            slice(2),
            int,
            float,
            object,
            np.float32,
            np.dtype(">f4"),
            np.dtype("M8[s]"),
            np.dtype([("a", "f4")]),
            np.float32(2),
            np.int64(8),
            np.True_,
            np.arange(2),
            np.zeros((2, 2)),
            np.array(3),
            np.array(["x"], object),
            DeviceDigit("x", 1, 2),
            DeviceDigit("x", 0, 2),
            DeviceDigit("q", 1, 2),
            DeviceDigit("x", 1.0, 2.0),
            DeviceDigit([], None, "2"),  # type: ignore[arg-type]
            IndexDigit(0, 1, 2),
            Local(2),
            Local(0),
            Local("2"),  # type: ignore[arg-type]
            (DeviceDigit("x", 1, 2), IndexDigit(0, 0, 2)),
            (DeviceDigit("x", 1, 2), "0:(1)2"),
            (DeviceDigit("x", 1, 2), IndexDigit("0", 1, 2)),
            MESH,
            T,
            ("f32[8{x}]", MESH),  # type: ignore[arg-type]
            ("f32[8{x}]", "x=2"),
            ("f32[", MESH),
            ((8,), "f32", "x"),
            ((8,), "f32", T),
        )
    },
    "10**5000": lambda: 10**5000,
    "generator": lambda: (n for n in (1, 2)),
    "lambda": lambda: lambda: None,
    "nested": lambda: nested(500),
    "long": lambda: "x" * 100_000,
    "strange": Strange,
    "hashless": lambda: Hashless("x"),
}

CALLS: dict[str, Callable[[Any], object]] = {
    "Mesh(v)": rd.Mesh,
    "Mesh(x=v)": lambda v: rd.Mesh(x=v),
    "Mesh([(v, 2)])": lambda v: rd.Mesh([(v, 2)]),
    "Mesh([v])": lambda v: rd.Mesh([v]),
    "Mesh(devices=v)": lambda v: rd.Mesh(x=2, devices=v),
    "Mesh(devices=[v, 1])": lambda v: rd.Mesh(x=2, devices=[v, 1]),
    "Mesh.parse": rd.Mesh.parse,
    "coordinates": MESH.coordinates,
    "axis_size": MESH.axis_size,
    "ArrayType(v)": lambda v: rd.ArrayType(v, "f32", (8,)),
    "ArrayType(dtype)": lambda v: rd.ArrayType(MESH, v, (8,)),
    "ArrayType(shape)": lambda v: rd.ArrayType(MESH, "f32", v),
    "ArrayType(size)": lambda v: rd.ArrayType(MESH, "f32", (v,)),
    "ArrayType(dims)": lambda v: rd.ArrayType(MESH, "f32", (8,), v),
    "ArrayType(dim)": lambda v: rd.ArrayType(MESH, "f32", (8,), [v]),
    "ArrayType(factor)": lambda v: rd.ArrayType(MESH, "f32", (8,), [[v]]),
    "ArrayType(partial)": lambda v: rd.ArrayType(MESH, "f32", (8,), partial=v),
    "ArrayType(partial axis)": lambda v: rd.ArrayType(MESH, "f32", (8,), partial=[v]),
    "ArrayType(reduction)": lambda v: rd.ArrayType(MESH, "f32", (8,), [()], ["x"], v),
    "ArrayType(reduction of nothing)": lambda v: rd.ArrayType(MESH, "f32", (8,), reduction=v),
    "ArrayType.parse(v)": lambda v: rd.ArrayType.parse(v, MESH),
    "ArrayType.parse(mesh)": lambda v: rd.ArrayType.parse("f32[8{x}]", v),
    "from_placements(v)": lambda v: rd.ArrayType.from_placements(MESH, "f32", (8,), v),
    "from_placements([v])": lambda v: rd.ArrayType.from_placements(MESH, "f32", (8,), [v]),
    "from_placements(shape)": lambda v: rd.ArrayType.from_placements(MESH, "f32", v, []),
    "replace(mesh)": lambda v: T.replace(mesh=v),
    "replace(dims)": lambda v: T.replace(dims=v),
    "replace(partial)": lambda v: T.replace(partial=v),
    "replace(reduction)": lambda v: T.replace(partial=["y"], reduction=v),
    "tile": T.tile,
    "tile_shape_at": T.tile_shape_at,
    "digit_coordinate": lambda v: T.digit_coordinate(v, 0),
    "equivalent": lambda v: equivalent(T, v),
    "on_mesh": lambda v: on_mesh(T, v),
    **{
        f"{call.__name__}({name})": partial(
            lambda call, name, v: call(T, U, **{name: v}), call, name
        )
        for call in (rd.plan, rd.cost, rd.explain)
        for name in ("memory_limit", "profile", "effort", "strategy")
        if (call, name) != (rd.explain, "strategy")
    },
    **{
        f"{call.__name__}(v, {side})": partial(lambda call, ends, v: call(*ends(v)), call, ends)
        for call in (rd.plan, rd.cost, rd.explain, ORACLE.cost, ORACLE.plan, ORACLE.explain)
        for side, ends in {
            "source": lambda v: (v, T),
            "target": lambda v: (T, v),
            "both": lambda v: (v, v),
        }.items()
    },
    "Oracle(mesh)": rd.Oracle,
    "Oracle(profile)": lambda v: rd.Oracle(MESH, v),
    "Oracle(limit)": lambda v: rd.Oracle(MESH, None, v),
    "Oracle(capacity)": lambda v: rd.Oracle(MESH, capacity=v),
    "Oracle(effort)": lambda v: rd.Oracle(MESH, effort=v),
    "Oracle.cost(strategy)": lambda v: ORACLE.cost(T, U, strategy=v),
    "Oracle.plan(strategy)": lambda v: ORACLE.plan(T, U, strategy=v),
    "Oracle.cost_vector": lambda v: ORACLE.cost_vector(v, [T]),
    "Oracle.cost_vector([v])": lambda v: ORACLE.cost_vector([T], [v]),
    "Oracle.cost_matrix": lambda v: ORACLE.cost_matrix([T], v),
    "Oracle.matrix": lambda v: ORACLE.matrix([v], [T]),
    "Oracle.matrix(strategy)": lambda v: ORACLE.matrix([T], [U], strategy=v),
    "cost_matrix": lambda v: rd.cost_matrix(v, [T]),
    "cost_matrix([v])": lambda v: rd.cost_matrix([T], [v]),
    "complete(v)": lambda v: rd.complete(v, "?"),
    "complete(pattern)": lambda v: rd.complete(T, v),
    "complete(limit)": lambda v: rd.complete(T, "f32[8{?}, 8]", memory_limit=v),
    "Plan.from_json": rd.Plan.from_json,
    "check": rd.check,
    "Link(v)": lambda v: rd.Link(v, 1.0),
    "Link(bandwidth)": lambda v: rd.Link(0.0, v),
    **{
        f"{parse.__name__}({what})": partial(lambda call, parse, v: call(parse, v), call, parse)
        for parse in (
            alpa.parse_alpa,
            colossalai.parse_colossalai,
            dtensor.parse_dtensor,
            hlo.parse_hlo,
            jax_text.parse_partition_spec,
            jax_text.parse_named_sharding,
            scalapack.parse_scalapack,
            shardy.parse_sdy,
        )
        for what, call in {
            "text": lambda parse, v: parse(v, MESH, (8, 8), "f32"),
            "shape": lambda parse, v: parse(EXAMPLES[parse.__name__], MESH, v, "f32"),
            "dtype": lambda parse, v: parse(EXAMPLES[parse.__name__], MESH, (8, 8), v),
            "mesh": lambda parse, v: parse(EXAMPLES[parse.__name__], v, (8, 8), "f32"),
        }.items()
    },
    "parse_aval": lambda v: jax_text.parse_aval(v, MESH),
    "parse_sdy_mesh": shardy.parse_sdy_mesh,
}
EXAMPLES = {
    "parse_alpa": "ShardingSpec([Chunked([2]), NoSharding()], [ShardedAxis(0), Replicated(4)])",
    "parse_colossalai": "[R, S0]",
    "parse_dtensor": "[Shard(0), Shard(1)]",
    "parse_hlo": "{devices=[2,4]<=[8]}",
    "parse_partition_spec": "P('x', None)",
    "parse_named_sharding": "NamedSharding(mesh=Mesh('x': 2, 'y': 4), spec=P('x',))",
    "parse_scalapack": "[1, 0, 8, 8, 2, 2, 0, 0, 4]",
    "parse_sdy": '<@mesh, [{"x"}, {}]>',
}


def failures(call: Callable[[Any], object], *, callables: bool = True) -> Iterator[str]:
    """What comes out of a call beside answers and RedistribErrors, or takes long to come out."""
    for name, make in VALUES.items():
        if not callables and callable(make()):
            continue
        start = time.process_time()
        try:
            call(make())
        except rd.RedistribError as error:
            if len(str(error)) > 1500 and name != "long":
                yield f"{name}: an error of {len(str(error))} characters"
        except Exception as error:  # noqa: BLE001 (that is what is looked for)
            yield f"{name}: {type(error).__name__}: {error}"
        if time.process_time() - start > 2:
            yield f"{name}: takes {time.process_time() - start:.1f} s"


@pytest.mark.parametrize("name", CALLS)
def test_whatever_is_given_the_answer_is_right_or_a_redistrib_error(name: str) -> None:
    # A strategy may be a function, and what a function of the caller raises is the caller's.
    assert list(failures(CALLS[name], callables="(strategy)" not in name)) == []


def test_a_raw_error_is_noticed() -> None:
    assert len(list(failures(len))) > 20
    assert len(list(failures(int))) > 20


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rd.ArrayType(MESH, "f32", (8.5,), [()]), r"whole numbers.*got 8\.5"),  # type: ignore[arg-type]
        (lambda: rd.ArrayType(MESH, "f32", (8.0,), [()]), r"whole numbers.*got 8\.0"),  # type: ignore[arg-type]
        (lambda: rd.ArrayType(MESH, "f32", (True,), [()]), "whole numbers.*got True"),
        (lambda: rd.ArrayType(MESH, "f32", (np.True_,), [()]), "whole numbers.*got np.True_"),
        (lambda: rd.ArrayType(MESH, "f32", "88", [(), ()]), "list of whole numbers.*got '88'"),  # type: ignore[arg-type]
        (lambda: rd.ArrayType(MESH, "f32", {8, 4}, [(), ()]), "list of whole numbers"),  # type: ignore[arg-type]
        (lambda: rd.ArrayType(MESH, None, (8,)), "unknown dtype None; known: bool, i8"),
        (lambda: rd.ArrayType(MESH, ">f4", (8,)), "unknown dtype '>f4'"),
        (lambda: rd.ArrayType(MESH, np.dtype(">f4"), (8,)), r"unknown dtype dtype\('>f4'\)"),
        (lambda: rd.ArrayType(MESH, 3, (8,)), "unknown dtype 3"),
        (lambda: rd.ArrayType(MESH, "f32", (8,), dims=["xy"]), "list of factors; got 'xy'"),
        (lambda: rd.ArrayType(MESH, "f32", (8,), partial="x"), "set of axes; got 'x'"),
        (lambda: rd.ArrayType(MESH, "f32", (8,), reduction="avg"), "got 'avg'"),
        (lambda: rd.ArrayType("x=2", "f32", (8,)), "a type is on a Mesh; got 'x=2'"),  # type: ignore[arg-type]
        (lambda: rd.Mesh(x=2, devices=[0.9, 1.9]), r"distinct and not negative.*0\.9"),  # type: ignore[list-item]
        (lambda: rd.Mesh(x=2, devices=[True, False]), "distinct and not negative"),
        (lambda: rd.Mesh(x=2, devices=["0", "1"]), "distinct and not negative"),  # type: ignore[list-item]
        (lambda: rd.Mesh(x=2, devices=[0, 10**30]), "distinct and not negative"),
        (lambda: rd.Mesh(x=True), "positive integer; got x=True"),
        (lambda: rd.Mesh(x=2.0), r"positive integer; got x=2\.0"),  # type: ignore[arg-type]
        (lambda: rd.Mesh("x=2,y"), "NAME=SIZE"),
        (lambda: rd.plan(T, U, memory_limit=float("nan")), "whole number of bytes.*got nan"),  # type: ignore[arg-type]
        (lambda: rd.plan(T, U, memory_limit=float("inf")), "whole number of bytes.*got inf"),  # type: ignore[arg-type]
        (lambda: rd.plan(T, U, memory_limit=1e9), "whole number of bytes"),  # type: ignore[arg-type]
        (lambda: rd.plan(T, U, memory_limit=True), "whole number of bytes.*got True"),
        (lambda: rd.plan(T, U, memory_limit=-5), "whole number of bytes.*got -5"),
        (lambda: rd.plan(T, U, memory_limit="1 parsec"), "got '1 parsec'"),
        (lambda: rd.plan("f32[8]", "f32[8]"), "a text where the other end"),
    ],
)
def test_what_is_wrong_is_said(make: Callable[[], object], message: str) -> None:
    with pytest.raises(rd.RedistribError, match=message):
        make()


def test_what_is_meant_is_taken() -> None:
    assert (
        rd.Mesh("x=2,y=4") == rd.Mesh({"x": np.int64(2), "y": 4}) == rd.Mesh([("x", 2), ("y", 4)])
    )
    assert rd.Mesh("x=2,y=4", devices=np.arange(8)) == MESH
    assert rd.ArrayType(MESH, np.float32, np.array([8, 8]), [["x"], ()]) == T
    asked = rd.plan(T, U)
    for src, dst in (
        (("f32[8{x}, 8]", MESH), U),
        (T, "f32[8, 8{x}]"),
        ("f32[8{x}, 8]", U),
        (("f32[8{x}, 8]", MESH), ("f32[8, 8{x}]", MESH)),
    ):
        assert rd.plan(src, dst) == asked
        assert rd.cost(src, dst) == rd.cost(T, U)
        assert ORACLE.cost(src, dst) == ORACLE.cost(T, U)
    assert ORACLE.cost("f32[8{x}, 8]", "f32[8, 8{x}]") == ORACLE.cost(T, U)
    assert ORACLE.cost_matrix(["f32[8{x}, 8]"], [U]) == ORACLE.cost_matrix([T], [U])
    assert rd.plan(T, U, memory_limit="1GiB") == rd.plan(T, U, memory_limit=2**30)
    assert rd.Oracle(MESH, memory_limit="1kB").memory_limit == 1000
