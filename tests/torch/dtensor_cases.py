"""Cases of DTensors, against torch's own full_tensor and distribute_tensor."""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor._dtensor_spec import DTensorSpec
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
from torch.distributed.tensor.placement_types import _StridedShard

import redistrib as rd
from redistrib.backends import torch as rtorch
from tests.torch.cases import case

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
DTYPES = (*FLOATS, torch.int32, torch.int64, torch.uint8)
MESHES = ((8,), (2, 4), (4, 2), (2, 2, 2), (4,), (2, 2))


@cache
def device_mesh(shape: tuple[int, ...], first: int = 0) -> DeviceMesh:
    """Ranks from `first` on in this shape. Made by all ranks, in one order."""
    count = int(np.prod(shape))
    return DeviceMesh("cpu", torch.arange(first, first + count).reshape(shape))


def random_placements(random: Random, mesh: DeviceMesh, ndim: int, partial: bool) -> list[Any]:
    kinds: list[Any] = [Replicate(), *(Shard(dim) for dim in range(ndim))]
    chosen = [random.choice(kinds) for _ in range(mesh.ndim)]
    if random.random() < 0.25:  # another order of shards, as strided ones
        shards = [n for n, p in enumerate(chosen) if p.is_shard()]
        if len(shards) > 1 and len({chosen[n].dim for n in shards}) == 1:
            later = [mesh.size(n) for n in shards[1:]]
            factor = int(np.prod(later))
            chosen[shards[0]] = _StridedShard(chosen[shards[0]].dim, split_factor=factor)
    if partial and random.random() < 0.3:
        n = random.randrange(mesh.ndim)
        chosen[n] = Partial(random.choice(("sum", "max", "min", "avg")))
    return chosen


def random_tensor(random: Random, mesh: DeviceMesh) -> DTensor:
    """Small whole numbers, exact under every reduction; sizes that need not divide."""
    shape = [random.choice((8, 16, 24, 7, 10, 1)) for _ in range(random.choice((1, 2, 2, 3)))]
    if random.random() < 0.5:
        shape = [16 for _ in shape]
    placements = random_placements(random, mesh, len(shape), partial=True)
    average = any(isinstance(p, Partial) and p.reduce_op == "avg" for p in placements)
    dtype = random.choice(FLOATS if average else DTYPES)
    seed = random.randrange(1 << 30)
    whole = torch.randint(0, 4, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    sharded = [Replicate() if isinstance(p, Partial) else p for p in placements]
    x = distribute_tensor(whole, mesh, sharded, src_data_rank=None)
    if sharded == placements or mesh.get_coordinate() is None:
        return retyped(x, placements)
    n = next(at for at, p in enumerate(placements) if isinstance(p, Partial))
    x.to_local().mul_(mesh.get_coordinate()[n] + 1)
    return retyped(x, placements)


def retyped(x: DTensor, placements: list[Any]) -> DTensor:
    spec = DTensorSpec(x.device_mesh, tuple(placements), tensor_meta=x._spec.tensor_meta)
    return DTensor(x._local_tensor, spec, requires_grad=False)


def check_move(x: DTensor, whole: torch.Tensor, mesh: DeviceMesh, placements: list[Any]) -> None:
    """The moved tensor has torch's local shards of the whole one, and the same full tensor."""
    before = x._local_tensor.clone()
    y = rtorch.redistribute(x, mesh, placements)
    assert torch.equal(x._local_tensor, before)
    assert y.placements == tuple(placements)
    assert y.shape == x.shape
    if mesh.get_coordinate() is None:
        assert not y.to_local().numel()
        return
    if not any(isinstance(p, Partial) for p in placements):
        expected = distribute_tensor(whole, mesh, placements, src_data_rank=None).to_local()
        assert y.to_local().shape == expected.shape, (x, placements)
        assert torch.equal(y.to_local(), expected), (x, placements, y.to_local(), expected)
    if not any(isinstance(p, _StridedShard) for p in placements):
        assert torch.equal(y.full_tensor(), whole), (x, placements)


@case
def random_dtensors_are_right(seed: int, count: int) -> None:
    """Pairs of placements on one mesh, of 4 or 8 ranks."""
    meshes = [device_mesh(shape) for shape in MESHES]
    random = Random(seed)
    done = 0
    while done < count:
        mesh = random.choice(meshes)
        x = random_tensor(random, mesh)
        placements = random_placements(random, mesh, x.ndim, partial=False)
        try:
            ends = x._spec, rtorch.target_spec(x, mesh, placements)
            if not all(rtorch.layout_of(spec).as_torch for spec in ends):
                continue  # compared with numpy below
        except rd.LayoutError:
            continue
        whole = rtorch.redistribute(x, mesh, [Replicate()] * mesh.ndim).to_local()
        if mesh.get_coordinate() is not None and not any(
            isinstance(p, _StridedShard) for p in x.placements
        ):
            assert torch.equal(whole, x.full_tensor()), x
        check_move(x, whole, mesh, placements)
        done += 1


def ordered_placements(mesh: DeviceMesh, order: list[int]) -> list[Any]:
    """Dimension 0 sharded by mesh dimensions in this order, as strided shards say it."""
    placements: list[Any] = [Replicate()] * mesh.ndim
    for place, n in enumerate(order):
        factor = int(np.prod([mesh.size(m) for m in order[:place] if m > n]))
        placements[n] = Shard(0) if factor == 1 else _StridedShard(0, split_factor=factor)
    return placements


def ordered_tile(whole: torch.Tensor, mesh: DeviceMesh, order: list[int]) -> torch.Tensor:
    """This rank's rows: those of the first mesh dimension, of them those of the next, and so on."""
    rows = np.arange(len(whole))
    for n in order:
        size = max(1, -(-len(rows) // mesh.size(n)))
        place = mesh.get_coordinate()[n]
        rows = rows[size * place : size * (place + 1)]
    return whole[torch.from_numpy(rows)]


@case
def random_orders_of_uneven_shards_are_right(seed: int, count: int) -> None:
    """Any order of the shards of rows that need not divide, to any other, against numpy."""
    meshes = [device_mesh(shape) for shape in ((2, 4), (4, 2), (2, 2, 2), (8,))]
    random = Random(seed)
    for _ in range(count):
        mesh = random.choice(meshes)
        whole = torch.arange(2 * random.choice((5, 7, 9, 10, 13, 17, 21, 24))).view(-1, 2)
        orders = [
            random.sample(range(mesh.ndim), random.randrange(mesh.ndim + 1)) for _ in range(2)
        ]
        placements, target = (ordered_placements(mesh, order) for order in orders)
        x = retyped(distribute_tensor(whole, mesh, [Replicate()] * mesh.ndim), placements)
        x = DTensor(ordered_tile(whole, mesh, orders[0]), x._spec, requires_grad=False)
        y = rtorch.redistribute(x, mesh, target)
        assert torch.equal(y.to_local(), ordered_tile(whole, mesh, orders[1])), (orders, whole)
        if rtorch.layout_of(y._spec).as_torch:
            expected = distribute_tensor(whole, mesh, target, src_data_rank=None)
            assert torch.equal(y.to_local(), expected.to_local()), (orders, whole)


@case
def parameters_of_fsdp_over_tensor_parallel_modules_are_whole() -> None:
    """Where rows do not divide: FSDP2 cuts what `distribute_tensor` cuts otherwise, and torch's
    full_tensor of it is wrong (pytorch#168134)."""
    mesh = torch.distributed.init_device_mesh("cpu", (4, 2), mesh_dim_names=("dp", "tp"))
    whole = torch.arange(18.0).view(9, 2)
    module = torch.nn.Sequential(torch.nn.Linear(2, 9, bias=False))
    module[0].weight.data.copy_(whole)
    parallelize_module(module, mesh["tp"], {"0": ColwiseParallel()})
    fully_shard(module, mesh=mesh["dp"])
    weight = module[0].weight.detach()
    placements = [_StridedShard(0, split_factor=2), Shard(0)]
    assert list(weight.placements) == placements
    y = rtorch.redistribute(weight, mesh, [Replicate(), Replicate()])
    assert torch.equal(y.to_local(), whole)
    other = distribute_tensor(whole, mesh, placements, src_data_rank=None)
    with pytest.raises(rd.BackendError, match=r"rank 6: a tile of .* got shape \[1, 2\]"):
        rtorch.redistribute(other, mesh, [Replicate(), Shard(1)])


@case
def meshes_of_other_ranks_and_shapes() -> None:
    """4 ranks to 4 others, 8 to 3, 2x2 to 4x2, 8 to 2x4."""
    pairs = [
        ((4,), 0, [Shard(0)], (4,), 4, [Shard(1)]),
        ((8,), 0, [Shard(0)], (3,), 1, [Shard(0)]),
        ((2, 2), 0, [Shard(0), Shard(1)], (4, 2), 0, [Shard(1), Replicate()]),
        ((8,), 0, [Shard(1)], (2, 4), 0, [Shard(0), Shard(1)]),
        ((2,), 0, [Partial()], (2, 2), 4, [Shard(1), Replicate()]),
        ((3,), 5, [Replicate()], (8,), 0, [Shard(0)]),
    ]
    for before, first, source, after, second, target in pairs:
        for shape in ((24, 48), (10, 7)):
            mesh, other = device_mesh(before, first), device_mesh(after, second)
            whole = torch.arange(shape[0] * shape[1]).reshape(shape)
            sharded = [Replicate() if p.is_partial() else p for p in source]
            x = retyped(distribute_tensor(whole, mesh, sharded, src_data_rank=None), source)
            times = mesh.size() if source != sharded else 1
            check_move(x, whole * times, other, target)


@case
def gradients_go_back() -> None:
    """First and second derivatives are those of the identity, and have the source's layout."""
    mesh = device_mesh((2, 4))
    other = device_mesh((4,), 4)
    whole = torch.arange(1.0, 65.0).reshape(8, 8)
    for on, target in (
        (mesh, [Shard(1), Shard(0)]),
        (mesh, [Replicate(), Shard(1)]),
        (other, [Shard(1)]),
    ):
        x = distribute_tensor(whole, mesh, [Shard(0), Shard(1)], src_data_rank=None)
        x.requires_grad_()
        y = rtorch.redistribute(x, on, target)
        assert y.requires_grad
        (gradient,) = torch.autograd.grad((y * y * y).sum(), x, create_graph=True)
        assert gradient.placements == x.placements
        assert torch.equal(gradient.full_tensor(), 3 * whole * whole)
        if on is mesh:
            (second,) = torch.autograd.grad(gradient.sum(), x)
            assert torch.equal(second.full_tensor(), 6 * whole)
        with torch.no_grad():
            assert not rtorch.redistribute(x, on, target).requires_grad
    part = retyped(
        distribute_tensor(whole, mesh, [Replicate()] * 2, src_data_rank=None),
        [Partial(), Replicate()],
    )
    part.requires_grad_()
    rtorch.redistribute(part, mesh, [Shard(0), Replicate()]).sum().backward()
    assert part.grad.placements == (Replicate(), Replicate())
    assert torch.equal(part.grad.full_tensor(), torch.ones(8, 8))


@case
def started_moves_end_in_any_order() -> None:
    mesh = device_mesh((2, 4))
    whole = torch.arange(256).reshape(16, 16)
    x = distribute_tensor(whole, mesh, [Shard(0), Shard(1)], src_data_rank=None)
    targets = ([Shard(1), Shard(0)], [Replicate(), Shard(1)], [Replicate(), Replicate()])
    begun = [rtorch.redistribute(x, mesh, target, async_op=True) for target in targets]
    for pending in reversed(begun):
        y = pending.wait()
        assert pending.wait() is y
        assert torch.equal(y.full_tensor(), whole)


@case
def what_is_refused() -> None:
    """Each with the rule, and on all ranks, before anything is sent."""
    mesh = device_mesh((8,))
    x = distribute_tensor(torch.arange(16), mesh, [Shard(0)], src_data_rank=None)
    for placements, fragment in (
        ([Shard(0), Shard(0)], "a placement for each of the 1 mesh dimensions"),
        ([Shard(1)], "a shard is of one of the 1 dimensions"),
        ([Partial("bor")], "a reduction of elements is one of sum, avg, product, max, min"),
        ([Partial("avg")], "averages are of floats"),
    ):
        with pytest.raises(rd.LayoutError, match=fragment):
            rtorch.redistribute(x, mesh, placements)
    grid = device_mesh((2, 4))
    with pytest.raises(rd.LayoutError, match="a strided shard that is uneven goes before"):
        rtorch.redistribute(
            distribute_tensor(torch.arange(10), grid, [Shard(0)] * 2, src_data_rank=None),
            grid,
            [_StridedShard(0, split_factor=3), Replicate()],
        )
    plan = rd.plan(*(rd.ArrayType.parse(t, rd.Mesh(x=2)) for t in ("f32[8{x}]", "f32[8]")))
    with pytest.raises(rd.BackendError, match="a mesh for this plan has 2 ranks; got 8"):
        rtorch.compile(plan, mesh)


@case
def compiled_functions_have_moves_in_their_graph() -> None:
    """fullgraph=True, with gradients, on one mesh, to another, uneven, from sums and averages.

    On two ranks: each takes seconds to import the compiler.
    """
    mesh, other = device_mesh((2,)), device_mesh((2, 1))
    if mesh.get_coordinate() is None:
        return
    whole = torch.arange(35.0).reshape(5, 7)
    for source, to, target in (
        ([Shard(0)], mesh, [Shard(1)]),
        ([Shard(1)], other, [Shard(0), Shard(1)]),
        ([Partial("avg")], mesh, [Shard(0)]),
    ):
        sharded = [Replicate() if p.is_partial() else p for p in source]
        x = retyped(distribute_tensor(whole, mesh, sharded, src_data_rank=None), source)
        results = []
        for compiled in (False, True):

            def moved(x: DTensor, to: Any = to, target: Any = target) -> DTensor:
                return rtorch.redistribute(x, to, target) * 2

            x = x.detach().requires_grad_()
            run = torch.compile(moved, backend="aot_eager", fullgraph=True) if compiled else moved
            y = run(x)
            (y * y).sum().backward()
            results.append((y, x.grad))
        (y, gradient), (in_graph, its_gradient) = results
        assert y.placements == in_graph.placements
        assert torch.equal(y.to_local(), in_graph.to_local()), (source, target)
        assert gradient.placements == its_gradient.placements, (source, target)
        assert torch.equal(gradient.to_local(), its_gradient.to_local()), (source, target)


@case
def programs_are_in_graphs_and_other_things_break_them() -> None:
    mesh = device_mesh((2,))
    if mesh.get_coordinate() is None:
        return
    tile = torch.arange(32.0).reshape(4, 8)
    ends = (rd.ArrayType.parse(t, rd.Mesh(x=2)) for t in ("f32[8{x}, 8]", "f32[8, 8{x}]"))
    program = rtorch.compile(rd.plan(*ends), mesh)

    def moved(tile: torch.Tensor) -> torch.Tensor:
        return program(tile * 2) + 1

    run = torch.compile(moved, backend="eager", fullgraph=True)
    assert torch.equal(run(tile), moved(tile))

    def started(tile: torch.Tensor) -> torch.Tensor:
        return program.start(tile * 2).wait() + 1

    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.compile(started, backend="eager", fullgraph=True)(tile)
    assert torch.equal(torch.compile(started, backend="eager")(tile), moved(tile))
