"""Random redistributions as programs make them, against numpy: what each rank holds is said twice.

A drawn end has a text of a type, and beside it, without the library, the indices that each rank
holds, from the formulas of those who cut so: `i // nb % p` of ScaLAPACK, `numpy.array_split`,
blocks of ceil(n / p), `torch.chunk` within `torch.chunk`. What a call must give is then an
assignment in numpy. All ranks draw the same; what they do apart from one another has its own seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

import redistrib as rd
from redistrib.backends import mpi as rmpi
from redistrib.backends.mpi import streams
from tests.mpi.cases import case
from tests.mpi.draws import reorder

Indices = np.ndarray
DTYPES = ("f32", "f64", "i8", "u16", "c64", "c128", "bf16", "bool", "f8e4m3fn")
AT_ONCE = rd.Profile("at once", rd.Link(0.0, 1e9))
"""Where parts of small arrays, too, are worth a gather."""
OPAQUE = ("V3", ">f8", "S5", "datetime64[s]")
OPERATIONS: tuple[tuple[str, Any, Any], ...] = (
    ("sum", None, np.add),
    ("max", None, np.maximum),
    ("sum", np.bitwise_xor, np.bitwise_xor),
    ("sum", lambda a, b: b, lambda a, b: b),  # not commutative
)


@dataclass(frozen=True, slots=True)
class DrawnEnd:
    """A type by its text, the ranks of its positions, and the indices of each position."""

    text: str
    mesh: rd.Mesh
    ranks: tuple[int, ...]
    tiles: tuple[tuple[Indices, ...], ...]
    addends: tuple[int, ...]
    """Which addend each position has; all 0 where the type is not partial."""

    @property
    def type(self) -> rd.ArrayType:
        return rd.ArrayType.parse(self.text, self.mesh)

    def tile(self, arrays: list[np.ndarray], rank: int) -> np.ndarray | None:
        """What a rank holds of an array that is the sum of these addends."""
        if rank not in self.ranks:
            return None
        position = self.ranks.index(rank)
        return arrays[self.addends[position]][np.ix_(*self.tiles[position])]


def ceil_blocks(indices: Indices, sizes: tuple[int, ...]) -> Iterator[Indices]:
    """Blocks by ceil, each cut again by the factors behind: `nested`."""
    step = max(1, -(-len(indices) // sizes[0]))
    for number in range(sizes[0]):
        block = indices[number * step : (number + 1) * step]
        yield from ceil_blocks(block, sizes[1:]) if len(sizes) > 1 else [block]


def draw_dim(rng: random.Random, n: int, axes: list[tuple[str, int]]) -> tuple[str, list[Indices]]:
    """How a dimension is written, and the indices of each owner, the last axis the minor one."""
    sizes = tuple(size for _, size in axes)
    owners, names, every = prod(sizes), ",".join(name for name, _ in axes), np.arange(n)
    if not axes:
        return str(n), [every]
    kinds = ["ceil", "balanced", "nested", "sizes", "cyclic", "cyclic"]
    match rng.choice(kinds if n else kinds[:4]):
        case "ceil":
            even = n % owners == 0 and rng.random() < 0.5
            return f"{n}{{{names}}}" + ":ceil" * (not even), list(ceil_blocks(every, (owners,)))
        case "balanced":
            return f"{n}{{{names}}}:balanced", np.array_split(every, owners)
        case "nested":
            return f"{n}{{{names}}}:nested", list(ceil_blocks(every, sizes))
        case "sizes":
            cuts = sorted(rng.randint(0, n) for _ in range(owners - 1))
            blocks = np.split(every, cuts)
            text = ",".join(str(len(block)) for block in blocks)
            return f"{n}{{{names}}}:sizes({text})", blocks
        case _:
            block = rng.choice((1, 2, 3, 4, 7))
            cycles = -(-n // (block * owners))
            held = [every[every // block % owners == owner] for owner in range(owners)]
            return f"{n}{{_{cycles},{names},_{block}}}:ceil", held


def draw_ranks(rng: random.Random, size: int) -> tuple[rd.Mesh, tuple[int, ...], bool]:
    """A mesh, the ranks of its positions, and whether the mesh names them itself."""
    count = size if rng.random() < 0.6 else rng.randint(1, size)
    axes, left = [], count
    while left > 1 and len(axes) < 3:
        factor = (
            left if len(axes) == 2 else rng.choice([d for d in range(2, left + 1) if left % d == 0])
        )
        axes.append(factor)
        left //= factor
    named = dict(zip("xyz", axes, strict=False))
    ranks = tuple(range(count) if rng.random() < 0.5 else rng.sample(range(size), count))
    if rng.random() < 0.5:
        return rd.Mesh(named, devices=ranks), ranks, True
    return rd.Mesh(named), ranks, False


def draw_end(
    rng: random.Random,
    mesh: rd.Mesh,
    ranks: tuple[int, ...],
    dtype: str,
    shape: tuple[int, ...],
    reduction: str | None,
) -> DrawnEnd:
    axes = list(mesh.axes)
    rng.shuffle(axes)
    added = axes.pop() if reduction and axes else None
    own: list[list[tuple[str, int]]] = [[] for _ in shape]
    for axis in axes:
        if shape and rng.random() < 0.85:
            rng.choice(own).append(axis)
    drawn = [draw_dim(rng, n, held) for n, held in zip(shape, own, strict=True)]
    text = f"{dtype}[{', '.join(words for words, _ in drawn)}]"
    tiles, addends = [], []
    for position in range(mesh.num_devices):
        at = mesh.coordinates(position)
        tile = []
        for (_, blocks), held in zip(drawn, own, strict=True):
            number = 0
            for name, size in held:
                number = number * size + at[name]
            tile.append(blocks[number])
        tiles.append(tuple(tile))
        addends.append(at[added[0]] if added else 0)
    if added:
        text += f" {reduction}{{{added[0]}}}"
    return DrawnEnd(text, mesh, ranks, tuple(tiles), tuple(addends))


@dataclass(slots=True)
class Drawn:
    """A redistribution with its options, and the assignment that it is in numpy."""

    src: DrawnEnd
    dst: DrawnEnd
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    dtype: np.dtype[Any]
    combine: Callable[..., Any] | None
    index: tuple[tuple[slice, ...], tuple[slice, ...]] | None
    options: dict[str, Any] = field(default_factory=dict)

    def arrays(self, seed: int) -> list[np.ndarray]:
        """The addends of a source array; one where it is not partial."""
        rng = np.random.default_rng(seed)
        shape, count = self.shapes[0], max(self.src.addends) + 1
        if self.src.type.partial:
            return [rng.integers(0, 3, shape).astype(self.dtype) for _ in range(count)]
        most = 2 if self.dtype == bool else 256
        raw = rng.integers(0, most, prod(shape) * self.dtype.itemsize, np.uint8)
        return [raw.view(self.dtype).reshape(shape)] * count  # of no elements, if more than one

    def result(self, addends: list[np.ndarray], before: np.ndarray) -> np.ndarray:
        """The target array, from what it was before."""
        total = addends[0].copy()
        for addend in addends[1:] if self.combine else ():
            total[...] = self.combine(total, addend)
        if self.index is None:
            return total
        after = before.copy()
        after[self.index[1]] = total[self.index[0]]
        return after


def draw_problem(rng: random.Random, size: int) -> Drawn:
    """A problem on `size` ranks, and options that the same problem may be given."""
    shape = tuple(
        rng.choice((0, 1, 2, 3, 5, 8, 12, 13, 24, 30)) for _ in range(rng.choice((1, 2, 2, 3)))
    )
    shapes, index = [shape, shape], None
    if rng.random() < 0.25:
        offsets = [tuple(rng.choice((0, 0, 1, 4)) for _ in shape) for _ in range(2)]
        index = tuple(
            tuple(slice(at, at + n) for at, n in zip(offset, shape, strict=True))
            for offset in offsets
        )
        shapes = [
            tuple(at + n + rng.choice((0, 2)) for at, n in zip(offset, shape, strict=True))
            for offset in offsets
        ]
    dtype = rng.choice(DTYPES)
    reduces = rng.random() < 0.3
    reduction, op, combine = rng.choice(OPERATIONS) if reduces else (None, None, None)
    if reduces:
        dtype = rng.choice(("i32", "i64", "u16"))
    mesh, ranks, named = draw_ranks(rng, size)
    src = draw_end(rng, mesh, ranks, dtype, shapes[0], reduction)
    other = (mesh, ranks, named) if rng.random() < 0.6 else draw_ranks(rng, size)
    dst = draw_end(rng, *other[:2], dtype, shapes[1], None)
    given = src.type.numpy_dtype
    partial = bool(src.type.partial)
    options: dict[str, Any] = {"scratch": rng.choice((1, 1000, None))}
    for end, (_, on, by_mesh) in (("src_ranks", (mesh, ranks, named)), ("dst_ranks", other)):
        # The first ranks in order are what a mesh names anyway: said, so that it is no mistake.
        if not by_mesh or on == tuple(range(len(on))):
            options[end] = on
    if index is not None:
        options |= {"src_index": index[0], "dst_index": index[1]}
    if partial and op is not None:
        options["op"] = op
    if partial and rng.random() < 0.2 and op is None:
        options["accumulate"] = "i8"
    if not partial and rng.random() < 0.1:
        options["dtype"] = given = np.dtype(rng.choice(OPAQUE))
    options["shared"] = rng.random() < 0.25
    options["check"] = rng.choice(("peers", "peers", "all", "none"))
    if rng.random() < 0.2:
        options["timeout"] = 60.0
    if rng.random() < 0.5:
        options["profile"] = AT_ONCE
    return Drawn(
        src, dst, (shapes[0], shapes[1]), given, combine if partial else None, index, options
    )


def same(found: np.ndarray | None, expected: np.ndarray | None) -> bool:
    if found is None or expected is None:
        return found is expected
    return (found.shape, found.dtype, found.tobytes()) == (
        expected.shape,
        expected.dtype,
        expected.tobytes(),
    )


@dataclass(slots=True)
class Given:
    """A tile and a copy of it, what the target tile was before and must become, and an out."""

    tile: np.ndarray | None
    kept: np.ndarray | None
    old: np.ndarray | None
    expected: np.ndarray | None
    out: np.ndarray | None

    def check(self, found: np.ndarray | None) -> None:
        assert same(found, self.expected), "wrong tile"
        assert same(self.tile, self.kept), "the source is not intact"
        assert found is None or self.out is None or found is self.out


class _Caller:
    """One redistribution under random calls."""

    def __init__(self, comm: MPI.Intracomm, rng: random.Random, seed: int, drawn: Drawn) -> None:
        self.comm, self.rng, self.seed, self.drawn = comm, rng, seed, drawn
        self.made = rmpi.Redistribution(drawn.src.type, drawn.dst.type, comm, **drawn.options)
        lends = not drawn.options["shared"] and rng.random() < 0.2
        self.lent = self.made.empty() if lends else None

    def array(self, number: int) -> Given:
        drawn, rank = self.drawn, self.comm.rank
        addends, shape = drawn.arrays(self.seed + number), drawn.shapes[1]
        most = 2 if drawn.dtype == bool else 256
        size = prod(shape) * drawn.dtype.itemsize
        raw = np.random.default_rng([self.seed, number]).integers(0, most, size, np.uint8)
        before = raw.view(drawn.dtype).reshape(shape)
        tile = drawn.src.tile(addends, rank)
        expected = drawn.dst.tile([drawn.result(addends, before)], rank)
        old = drawn.dst.tile([before], rank)
        # Together in one order, or each rank in its own.
        together = self.rng.random() < 0.7
        order = random.Random(f"{self.seed} {number} {-1 if together else rank}")
        tile = None if tile is None else reorder(order, tile)
        out = None
        if self.made.out is not None:
            self.made.out[...] = old
        elif old is not None and (drawn.index is not None or order.random() < 0.5):
            out = reorder(order, old)
        return Given(tile, None if tile is None else tile.copy(), old, expected, out)

    def call(self, number: int) -> None:
        given = self.array(number)
        shared = self.drawn.options["shared"]
        how = self.rng.choice(("call", "start", "test", "several", "batch", "again"))
        if how == "batch" and not shared:
            more = [self.array(number + 100 + n) for n in range(self.rng.randint(0, 3))]
            gives = self.drawn.index is not None or self.rng.random() < 0.7
            outs = [item.out for item in more] if gives else None
            for item in more:
                item.out = item.out if gives else None
            for item, result in zip(
                more, self.made.batch([item.tile for item in more], outs), strict=True
            ):
                item.check(result)
            return
        if how == "several" and not shared:
            begun = [
                (item, self.made.start(item.tile, item.out))
                for item in (given, self.array(number + 200), self.array(number + 201))
            ]
            own = random.Random(f"{self.seed} {number} {self.comm.rank}")
            for item, running in own.sample(begun, len(begun)):
                [found] = running.wait()
                item.check(found)
            return
        if self.lent is not None and self.rng.random() < 0.7:
            if given.old is not None:
                self.lent[...] = given.old
            given.out, shared = self.lent, True
        if shared:
            self.comm.Barrier()  # nobody writes into a tile whose old content is being put there
        if how in ("start", "test"):
            running = self.made.start(given.tile, given.out)
            while how == "test" and not running.test():
                pass
            [found] = running.wait()
        else:
            found = self.made(given.tile, given.out)
        given.check(found)
        if how == "again" and self.drawn.index is None:  # the same memory, kept messages
            given.check(self.made(given.tile, given.out))

    def fail(self, number: int) -> None:
        """One rank gives what is no tile: each ends with the error by the check, and all go on."""
        culprit = self.rng.randrange(self.comm.size)
        given = self.array(number)
        if self.drawn.options["shared"]:
            self.comm.Barrier()
        tile: Any = "none" if self.comm.rank == culprit else given.tile
        in_call = self.error_of(lambda: given.check(self.made(tile, given.out)))
        everywhere = self.comm.allreduce(in_call is not None, MPI.LAND)
        in_check = self.error_of(self.made.check_calls)
        assert (in_check is None) == everywhere, (in_call, in_check)
        for error in filter(None, (in_call, in_check)):
            assert error.rank == culprit, error

    @staticmethod
    def error_of(action: Callable[[], None]) -> rd.BackendError | None:
        try:
            action()
        except rd.BackendError as error:
            return error
        return None


def fuzz(comm: MPI.Intracomm, seed: int) -> None:
    """One draw: made, called a few times in any way, perhaps with a fault in between."""
    rng = random.Random(seed)
    drawn = draw_problem(rng, comm.size)
    with pytest.MonkeyPatch.context() as patch:
        # Small arrays would all go one way: these figures choose the way, and never the result.
        patch.setattr(streams, "SHORT_RUN", rng.choice((0, 64, 1 << 30)))
        patch.setattr(streams, "SLAB_RUNS", rng.choice((None, 1, 3)))
        patch.setattr(streams, "LEAST_CHUNK", rng.choice((1, 40, 4096)))
        patch.setattr(streams, "DEPTH_DIRECT", rng.choice((1, 3, 64)))
        caller = _Caller(comm, rng, seed, drawn)
        with caller.made:
            calls = rng.randint(1, 3)
            for number in range(calls):
                if drawn.options["check"] != "none" and rng.random() < 0.1:
                    caller.fail(number)
                caller.call(number + 10)


@case
def programs_equal_numpy(comm: MPI.Intracomm, first: int, count: int) -> None:
    for seed in range(first, first + count):
        try:
            fuzz(comm, seed)
        except Exception as error:
            drawn = draw_problem(random.Random(seed), comm.size)
            what = f"{drawn.src.text} on {drawn.src.mesh} {drawn.src.ranks} -> {drawn.dst.text} on "
            what += f"{drawn.dst.mesh} {drawn.dst.ranks}, {drawn.options}"
            raise AssertionError(f"seed {seed}: {what}: {error!r}") from error
