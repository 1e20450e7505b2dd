"""Cases of plans run on local tensors, against the simulator."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
from random import Random

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

import redistrib as rd
from redistrib.backends import simulator
from redistrib.backends import torch as rtorch
from tests.generators import random_pair
from tests.torch.cases import case, rank, ranks, same_bits, to_torch
from tests.uneven.test_plans import random_type

FLOATS = ("f32", "f64", "f16", "bf16", "f8e4m3fn", "f8e5m2", "c64", "c128")
INTEGERS = ("i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "bool")
DTYPES = (*FLOATS, *INTEGERS)


def check(plan: rd.Plan, seed: int) -> None:
    """The tile of this rank is that of the simulator, and so are the bytes it received."""
    array = values(plan.src, seed)
    tiles = simulator.scatter(array, plan.src)
    if plan.src.partial:  # not only zeros beside the first addend
        tiles = [values(plan.src, seed + 1 + n, tile.shape) for n, tile in enumerate(tiles)]
        tiles = with_equal_replicas(tiles, plan.src)
    expected = simulator.run(plan, tiles)
    program = rtorch.compile(plan)
    here = rank()
    sources = {device: tiles[n] for n, device in enumerate(plan.src.mesh.ids)}
    targets = {device: expected[n] for n, device in enumerate(plan.dst.mesh.ids)}
    given = to_torch(sources[here]) if here in sources else None
    result = program(given)
    if here in targets:
        assert result is not None
        assert same_bits(result, targets[here]), (str(plan), result, targets[here])
        assert result.is_contiguous()
    else:
        assert result is None
    assert program.traffic.received <= plan.received_bytes, (str(plan), program.traffic)
    again = program.start(given)
    assert again.wait() is again.wait()


def values(t: rd.ArrayType, seed: int, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Whole numbers, exact in every dtype and under every reduction; unsigned ones are large."""
    random = np.random.default_rng(seed)
    chosen = random.integers(0, 3, t.shape if shape is None else shape)
    if t.numpy_dtype.kind == "u":
        return chosen.astype(t.numpy_dtype) * t.numpy_dtype.type(np.iinfo(t.numpy_dtype).max // 2)
    return chosen.astype(t.numpy_dtype)


def with_equal_replicas(tiles: list[np.ndarray], t: rd.ArrayType) -> list[np.ndarray]:
    """Devices that differ in free digits only hold the same."""
    first: dict[object, np.ndarray] = {}
    free = set(t.free_digits)
    digits = [d for d, _ in t.placements] + list(t.partial)
    assert not free & set(digits)
    result = []
    for position, tile in enumerate(tiles):
        key = tuple(t.digit_coordinate(digit, position) for digit in digits)
        result.append(first.setdefault(key, tile))
    return result


@case
def random_plans_are_right(seed: int, count: int) -> None:
    """Plans of every strategy between random types, on as many ranks as they need."""
    random = Random(seed)
    done = 0
    while done < count:
        src, dst = random_pair(random.choice)
        if src.mesh.num_devices > ranks():
            continue
        strategy = random.choice(("auto", "collectives", "direct"))
        dtype = random.choice(DTYPES)
        src, dst = (
            rd.ArrayType(t.mesh, dtype, t.shape, t.dims, t.partial, t.reduction) for t in (src, dst)
        )
        try:
            plan = rd.plan(src, dst, strategy=strategy)
        except rd.RedistribError:
            continue
        check(plan, seed + done)
        done += 1


@case
def random_uneven_plans_are_right(seed: int, count: int) -> None:
    """Padded and by blocks, of every rule, with partial sums, on one mesh and between two."""
    random = Random(seed)
    meshes = [rd.Mesh(axes) for axes in ("x=3", "x=8", "x=2,y=3", "x=2,y=2,z=2")]
    padded = 0
    for n in range(count):
        here = random.choice(meshes)
        there = here if random.random() < 0.7 else random.choice(meshes)
        shape = [random.choice((1, 5, 7, 10, 12)) for _ in range(random.randrange(1, 3))]
        src = random_type(random.choice, here, shape, random.choice(("", "sum")))
        dst = random_type(random.choice, there, shape, "")
        plan = rd.plan(src, dst, strategy=random.choice(("auto", "auto", "direct")))
        padded += plan.padded_shape is not None
        check(plan, seed + n)
    assert padded or count < 20


@case
def every_dtype_and_reduction() -> None:
    """A partial array of every dtype, reduced to tiles and to replicas, and made partial again."""
    mesh = rd.Mesh(x=4)
    for dtype in DTYPES:
        for reduction in ("sum", "prod", "max", "min"):
            src = rd.ArrayType.parse(f"{dtype}[8, 6] {reduction}{{x}}", mesh)
            for text in ("[8{x}, 6]", "[8, 6]"):
                check(rd.plan(src, rd.ArrayType.parse(dtype + text, mesh)), 7)
        for text in ("[8{x}, 6]", "[8, 6]"):
            whole = rd.ArrayType.parse(dtype + text, mesh)
            check(rd.plan(whole, whole.replace(dims=[(), ()], partial=["x"], reduction="max")), 8)


@case
def meshes_of_other_ranks() -> None:
    """4 ranks to 4 others, 8 to 3, 2x2 to 4x2; ranks without a tile give and get None."""
    pairs = [
        (rd.Mesh(x=4), rd.Mesh({"x": 4}, devices=[4, 5, 6, 7]), "[24{x}, 12]", "[24, 12{x}]"),
        (rd.Mesh(x=8), rd.Mesh({"y": 3}, devices=[6, 1, 3]), "[24{x}, 12]", "[24{y}, 12]"),
        (
            rd.Mesh(x=2, y=2),
            rd.Mesh({"a": 4, "b": 2}, devices=range(7, -1, -1)),
            "[24{x}, 12{y}]",
            "[24{b}, 12{a}]",
        ),
        (rd.Mesh(x=4), rd.Mesh({"x": 2}, devices=[5, 2]), "[24, 12] sum{x}", "[24{x}, 12]"),
        (rd.Mesh(x=2), rd.Mesh({"x": 4}, devices=[1, 2, 3, 4]), "[24, 12]", "[24, 12]"),
    ]
    for before, after, src, dst in pairs:
        for strategy in ("auto", "direct"):
            ends = rd.ArrayType.parse("f32" + src, before), rd.ArrayType.parse("f32" + dst, after)
            check(rd.plan(*ends, strategy=strategy), 3)


@case
def examples_in_docstrings() -> None:
    """They run where torch is, on one rank."""
    if rank():
        return
    for module in pkgutil.iter_modules(rtorch.__path__, f"{rtorch.__name__}."):
        failed, _ = doctest.testmod(importlib.import_module(module.name))
        assert not failed, module.name


def rows_to_columns(axis: str = "x", **options: float) -> rtorch.Program:
    types = (f"f32[8{{{axis}}}, 8]", f"f32[8, 8{{{axis}}}]")
    mesh = rd.Mesh({axis: ranks()})
    return rtorch.compile(rd.plan(*(rd.ArrayType.parse(t, mesh) for t in types)), **options)


@case
def a_wrong_first_call_is_an_error_on_all() -> None:
    """A tile, a plan or a DTensor's shape that is wrong on one rank; the next call is right."""
    wrong, odd = torch.ones(8 // ranks(), 8), rank() == ranks() - 1
    for given, words in (
        (wrong[:, 1:], r"got shape \[1, 7\]"),
        (wrong.double(), "got .*float64"),
        (wrong.to("meta"), "got .* on meta"),
        (None, "got None"),
    ):
        program = rows_to_columns(f"a{len(words)}")
        with pytest.raises(rd.BackendError, match=f"rank 7: a tile of .* has .*{words}"):
            program(given if odd else wrong)
        result = program(wrong)
        assert torch.equal(result, torch.ones(8, 8 // ranks()))
    types = (rd.ArrayType.parse(t, rd.Mesh(b=ranks())) for t in ("f32[8]", "f32[8{b}]"))
    whole = rtorch.compile(rd.plan(*types))
    with pytest.raises(rd.BackendError, match=r"different plans: rank 0 .*, rank 7 .*") as error:
        (whole if odd else rows_to_columns("b"))(torch.ones(8) if odd else wrong)
    assert error.value.rank == ranks() - 1
    mesh = DeviceMesh("cpu", torch.arange(ranks()))
    x = DTensor.from_local(torch.ones(2, 3 + odd), mesh, [Shard(0)], run_check=False)
    with pytest.raises(rd.BackendError, match=r"different plans: rank 0 .* rank 7"):
        rtorch.redistribute(x, mesh, [Shard(1)])


def a_wrong_later_call_is_told() -> None:
    """Within the timeout the others name the rank at fault; another job then works as before."""
    program = rows_to_columns(timeout=2)
    tile = torch.ones(8 // ranks(), 8)
    program(tile)
    with pytest.raises(rd.BackendError, match=r"a tile of .* got .*float64") as error:
        program(tile.double() if rank() == 1 else tile)
    assert error.value.rank == 1
    here, size, store = rank(), ranks(), dist.distributed_c10d._get_default_store()
    dist.destroy_process_group()
    dist.init_process_group(
        "gloo", store=dist.PrefixStore("again", store), rank=here, world_size=size
    )
    rows_to_columns()(tile)


case(a_wrong_later_call_is_told)


def waits_for_a_lost_rank() -> None:
    """The last rank ends in the middle of a call, and later calls fail at once."""
    program = rows_to_columns(timeout=10)
    tile = torch.ones(8 // ranks(), 8)
    program(tile)
    if rank() == ranks() - 1:
        os._exit(1)
    for _ in range(2):
        with pytest.raises(rd.BackendError, match=r"rank \d (waited for ranks|cannot send)"):
            program(tile)


case(waits_for_a_lost_rank)  # without a decorator: it ends the pool


@case
def programs_give_memory_of_their_own() -> None:
    """What is written into a result is not seen in the tile that was given."""
    mesh = rd.Mesh(x=ranks())
    for target in ("f32[16{x}, 4]", "f32[16, 4] sum{x}"):
        ends = (rd.ArrayType.parse(text, mesh) for text in ("f32[16, 4]", target))
        tile = torch.ones(16, 4)
        rtorch.compile(rd.plan(*ends))(tile).zero_()
        assert torch.equal(tile, torch.ones(16, 4)), target


@case
def single_elements_of_any_stride_are_sent() -> None:
    """A column of one row is contiguous, whatever its stride is."""
    mesh = rd.Mesh(x=ranks())
    ends = (rd.ArrayType.parse(text, mesh) for text in ("f16[1, 8] sum{x}", "f16[1, 8{x}]"))
    program = rtorch.compile(rd.plan(*ends))
    tile = torch.ones(8, 8, dtype=torch.float16)[:, rank()].view(1, 8)
    assert program(tile).item() == ranks()
