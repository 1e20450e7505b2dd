"""Random plans, built step by step without the planner: every collective, every digit size.

Used by the tests of the backends that run real processes; `tests` are imported there by name.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from math import prod

import numpy as np
from numpy.typing import NDArray

from redistrib.backends import simulator
from redistrib.errors import LayoutError
from redistrib.synth.collectives import (
    AllGather,
    AllReduce,
    AllToAll,
    Collective,
    CollectivePermute,
    DynamicSlice,
    Move,
    ReduceScatter,
    ReplicatedToPartial,
    ShardedToPartial,
)
from redistrib.synth.plan import Plan, make_plan
from redistrib.synth.routing import exchange_traffic
from redistrib.synth.tables import permute_table
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, IndexDigit, Local
from redistrib.types.mesh import Mesh

MOVED = ("f32", "bf16", "f8e4m3fn", "i8", "bool", "c64", "f64", "u16")
SUMMED = ("f32", "i32", "bf16", "u8", "bool")


def random_mesh(rng: random.Random, devices: int) -> Mesh:
    """A mesh of that many devices, cut into random axes."""
    sizes = []
    while devices > 1:
        size = rng.choice([d for d in range(2, devices + 1) if devices % d == 0])
        sizes.append(size)
        devices //= size
    rng.shuffle(sizes)
    return Mesh({f"x{i}": size for i, size in enumerate(sizes)})


def digits_of(mesh: Mesh, rng: random.Random) -> list[DeviceDigit]:
    """Each axis whole, or cut once."""
    found = []
    for name, size in mesh.axes:
        cuts = [c for c in range(2, size) if size % c == 0]
        cut = rng.choice([1, *cuts])
        found += [DeviceDigit(name, 1, cut), DeviceDigit(name, cut, size // cut)]
    return [d for d in found if d.size > 1]


def random_type(
    mesh: Mesh,
    shape: tuple[int, ...],
    dtype: str,
    rng: random.Random,
    partial: tuple[DeviceDigit, ...] = (),
    reduction: str = "sum",
) -> ArrayType:
    """A legal type: digits on random dimensions, with local factors before and between them."""
    while True:
        dims: list[list[DeviceDigit | Local]] = [[] for _ in shape]
        for digit in digits_of(mesh, rng):
            if digit.axis not in {p.axis for p in partial} and rng.random() < 0.8:
                at = rng.randrange(len(shape))
                if rng.random() < 0.3:
                    dims[at].append(Local(rng.choice([2, 3])))
                dims[at].insert(rng.randint(0, len(dims[at])), digit)
        try:
            return ArrayType(mesh, dtype, shape, dims, partial, reduction)
        except LayoutError:
            continue


def _local_digits(t: ArrayType, rng: random.Random) -> list[IndexDigit]:
    """Index digits that a step may take from local positions of a type."""
    found = []
    for dim, n in enumerate(t.shape):
        owned = [i for _, i in t.placements if i.dim == dim]
        low = 1
        for index in [*owned, IndexDigit(dim, n, 1)]:
            room = index.pre // low
            for before in (b for b in range(1, room + 1) if room % b == 0):
                left = room // before
                found += [
                    IndexDigit(dim, low * before, size)
                    for size in range(2, left + 1)
                    if left % size == 0
                ]
            low = index.end
    rng.shuffle(found)
    return found


def _free(t: ArrayType, rng: random.Random) -> list[DeviceDigit]:
    used = [d for d, _ in t.placements] + list(t.partial)
    found = [
        d
        for d in digits_of(t.mesh, rng)
        if not any(u.axis == d.axis and d.pre < u.end and u.pre < d.end for u in used)
    ]
    rng.shuffle(found)
    return found


def _slice(t: ArrayType, rng: random.Random) -> Collective:
    device = rng.choice(_free(t, rng))
    index = next(i for i in _local_digits(t, rng) if i.size == device.size)
    return DynamicSlice(((device, index),))


def _gather(t: ArrayType, rng: random.Random) -> Collective:
    return AllGather(tuple(rng.sample(t.placements, rng.randint(1, min(2, len(t.placements))))))


def _all_to_all(t: ArrayType, rng: random.Random) -> Collective:
    moves: list[Move] = []
    for device, index in rng.sample(t.placements, rng.randint(1, min(2, len(t.placements)))):
        taken = [m.target for m in moves]
        target = next(
            i
            for i in _local_digits(t, rng)
            if i.size == device.size
            and not any(i.dim == k.dim and i.pre < k.end and k.pre < i.end for k in taken)
        )
        moves.append(Move(device, index, target))
    return AllToAll(tuple(moves))


def _permute(t: ArrayType, rng: random.Random) -> Collective:
    if rng.random() < 0.3:
        # A table: the same tiles, owned by other digits or by digits of other sizes.
        shape = [
            prod(d.size for d, i in t.placements if i.dim == dim) for dim in range(len(t.shape))
        ]
        whole = ArrayType(
            t.mesh, t.dtype, t.shape, [_axes_of(t.mesh, n, rng) for n in shape], (), None
        )
        return CollectivePermute((), permute_table(t, whole))
    digits = [d for d, _ in t.placements] + _free(t, rng)
    size = rng.choice([d.size for d in digits])
    olds = [d for d in digits if d.size == size]
    news = olds[:]
    rng.shuffle(news)
    return CollectivePermute(tuple(zip(olds, news, strict=True)))


def _axes_of(mesh: Mesh, size: int, rng: random.Random) -> list[str]:
    names = [name for name, _ in mesh.axes]
    for _ in range(20):
        chosen = rng.sample(names, rng.randint(0, len(names)))
        if prod(mesh.axis_size(name) for name in chosen) == size:
            return chosen
    raise LayoutError("no axes of that size")


def _exchange(t: ArrayType, rng: random.Random) -> Collective:
    reduction = t.reduction or "sum"
    target = random_type(t.mesh, t.shape, t.dtype, rng, t.partial, reduction)
    return exchange_traffic(t, target).exchange


def _reduce_scatter(t: ArrayType, rng: random.Random) -> Collective:
    device = rng.choice(t.partial)
    index = next(i for i in _local_digits(t, rng) if i.size == device.size)
    return ReduceScatter(((device, index),))


def _all_reduce(t: ArrayType, rng: random.Random) -> Collective:
    return AllReduce(tuple(rng.sample(t.partial, rng.randint(1, len(t.partial)))))


def _to_partial(t: ArrayType, rng: random.Random) -> Collective:
    return ReplicatedToPartial((rng.choice(_free(t, rng)),), t.reduction or "sum")


def _sharded_to_partial(t: ArrayType, rng: random.Random) -> Collective:
    return ShardedToPartial((rng.choice(t.placements),), t.reduction or "sum")


MOVES: tuple[Callable[[ArrayType, random.Random], Collective], ...] = (
    _slice,
    _gather,
    _all_to_all,
    _permute,
    _exchange,
)
REDUCTIONS = (_reduce_scatter, _all_reduce, _to_partial, _sharded_to_partial)


def random_plan(rng: random.Random, devices: int, *, reduce: bool) -> Plan:
    """A plan of one to four random steps; with `reduce`, from a type with partial axes."""
    mesh = random_mesh(rng, devices)
    dtype = rng.choice(SUMMED if reduce else MOVED)
    shape = rng.choice([(24,), (12, 24), (48, 6), (8, 12, 6), (16, 48)])
    partial: tuple[DeviceDigit, ...] = ()
    if reduce:
        partial = tuple(rng.sample(digits_of(mesh, rng), 1))
    reduction = rng.choice(["sum", "max", "min", "prod"]) if reduce else "sum"
    src = random_type(mesh, shape, dtype, rng, partial, reduction)
    kinds = MOVES + REDUCTIONS if reduce else MOVES
    steps: list[Collective] = []
    t = src
    for _ in range(rng.randint(1, 4)):
        for _ in range(20):
            try:
                step = rng.choice(kinds)(t, rng)
                after = step.apply(t)
                # A rule that does not look at nesting would let ill-formed digits through.
                make_plan(t, after, "random", [step])
            except (LayoutError, IndexError, ValueError, StopIteration):
                continue
            steps.append(step)
            t = after
            break
    return make_plan(src, t, "random", steps)


def random_plans(seed: int, devices: int, count: int) -> Iterator[Plan]:
    """That many plans, every third with reductions."""
    rng = random.Random(seed)
    for number in range(count):
        yield random_plan(rng, devices, reduce=number % 3 == 2)


def random_tiles(plan: Plan, seed: int) -> list[NDArray[np.generic]]:
    """Tiles of the plan's source; replicas agree, partial ones hold small integers of their own."""
    rng = np.random.default_rng(seed)
    t = plan.src
    whole = t.with_partial(())
    addends = {}
    tiles = []
    for position in range(t.mesh.num_devices):
        key = tuple(t.digit_coordinate(digit, position) for digit in t.partial)
        if key not in addends:
            addends[key] = example(
                t.shape, t.numpy_dtype, rng, exact=bool(t.partial or _partial(plan))
            )
        tiles.append(np.ascontiguousarray(addends[key][np.ix_(*whole.tile(position))]))
    return tiles


def _partial(plan: Plan) -> bool:
    return any(t.partial for t in plan.types)


def example(
    shape: tuple[int, ...], dtype: np.dtype[np.generic], rng: np.random.Generator, *, exact: bool
) -> NDArray[np.generic]:
    """Random bits, without NaNs; where sums are taken, small integers."""
    if dtype == np.bool_:
        return rng.integers(0, 2, shape).astype(bool)
    if exact:
        return rng.integers(1, 3, shape).astype(dtype)
    return rng.integers(-100, 100, shape).astype(dtype)


def expected_tiles(plan: Plan, seed: int) -> list[NDArray[np.generic]]:
    """What the simulator makes of `random_tiles`."""
    return simulator.run(plan, random_tiles(plan, seed))
