"""The moves of a model plan in batches: what is one program, and what fits into the memory.

Of 32 layers {"q": f32[4096, 4096], "norm": f32[4096]}, the q are equal moves, and so are the norms.
Those that run on one mesh go up to `MOST` at a time (`together`), as many as a budget has room for:
their targets, what the compiler says that the program allocates beside them, and what is alive of
the rest. Where one array alone has no room, it goes in chunks. Between sets of devices the copies
of `between` do the same; those in memory need no program, and go by bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from numpy.typing import NDArray

from redistrib.backends.jax import meshes, together
from redistrib.backends.jax.between import Result, Union, between, in_memory, inputs_of
from redistrib.backends.jax.host_copies import Array, transfers_to
from redistrib.backends.jax.together import WAYS, Ends, Together, Way
from redistrib.errors import InfeasibleError
from redistrib.models.figures import CHUNK
from redistrib.models.model_plan import ModelPlan
from redistrib.models.moves import Move
from redistrib.models.segments import AnyType
from redistrib.types.dtypes import numpy_dtype

MOST = 16
"""Arrays of a batch: a program grows with them."""
BATCH_BYTES = 256 << 20
"""Bytes of the targets of a batch, all devices together."""
Arrays = Mapping[Array, jax.Array]
Run = Callable[[Arrays], Sequence[jax.Array]]
Bytes = NDArray[np.int64]
"""By device."""


@dataclass(frozen=True, slots=True)
class Source:
    """What is known of an array before it moves."""

    shape: tuple[int, ...]
    dtype: Any
    weak_type: bool
    sharding: NamedSharding


@dataclass(frozen=True, slots=True)
class Batch:
    """Moves that run together; `released` are the sources that nobody needs after them."""

    targets: tuple[str, ...]
    released: tuple[str, ...]
    bytes: int
    run: Run


@dataclass(frozen=True, slots=True)
class _Apart:
    """Moves between sets of devices; those with one program have equal `transfers`."""

    transfers: Hashable
    in_memory: bool


Kind = Ends | _Apart


@dataclass(frozen=True, slots=True)
class _Fitted:
    """A batch: its program, how many moves it is, what it adds, and what is alive meanwhile."""

    run: Run
    count: int
    allocated: Bytes
    needed: Bytes


class Batches:
    """Makes the batches of a plan; `targets` are the shardings of the results by name.

    `budget` is in bytes per device. The plan's own is not asked for: a result that has the buffers
    of its source takes no memory here, and what a program allocates its compiler knows.
    """

    def __init__(
        self,
        plan: ModelPlan,
        sources: Mapping[str, Source],
        targets: Mapping[str, NamedSharding],
        budget: int | None,
    ) -> None:
        self.plan, self.sources, self.targets = plan, sources, targets
        self.budget = budget
        self.place = {device: n for n, device in enumerate(plan.devices)}
        self.made_by_rules = plan.weights.targets(sources)
        self.on_mesh: dict[Hashable, Together | None] = {}
        self.unions: dict[Hashable, Union] = {}

    def all(self) -> list[Batch]:
        """The batches in order. Raises InfeasibleError where one has no room in the budget."""
        groups = self._groups()
        order = [move for _, moves in groups for move in moves]
        last = {name: n for n, move in enumerate(order) for name, _ in move.sources}
        alive = self._nothing()
        for t in self.plan.src.values():
            alive += self._bytes(t)
        batches: list[Batch] = []
        worst = 0, ""
        done = 0
        for kind, moves in groups:
            remaining = moves
            while remaining:
                fitted = self._fitted(kind, remaining, alive)
                taken, remaining = remaining[: fitted.count], remaining[fitted.count :]
                done += fitted.count
                worst = max(worst, (int(fitted.needed.max(initial=0)), taken[0].target))
                used = dict.fromkeys(name for move in taken for name, _ in move.sources)
                viewed = isinstance(kind, Ends) and kind.is_view
                released = tuple(n for n in used if last[n] < done and not viewed)
                alive = alive + fitted.allocated
                if not self.plan.keep_sources:
                    for name in released:
                        alive = alive - self._bytes(self.plan.src[name])
                total = sum(int(self._target(move).sum()) for move in taken)
                names = tuple(move.target for move in taken)
                batches.append(Batch(names, released, total, fitted.run))
        if self.budget is not None and worst[0] > self.budget:
            raise InfeasibleError(
                f"the tree moves with {worst[0]} bytes per device, which are alive while "
                f"{worst[1]} moves, temporaries of the compiler's among them; the memory budget is "
                f"{self.budget}",
                memory_limit=self.budget,
                least_bytes=worst[0],
            )
        return batches

    def _groups(self) -> list[tuple[Kind, list[Move]]]:
        """Moves of one kind: all of them, or, where sources are given up, those in a row.

        What comes from targets made before comes last.
        """
        moves = [(self._kind(move), move) for move in self.plan.moves]
        if self.plan.keep_sources:
            first: dict[Kind, int] = {}
            for n, (kind, _) in enumerate(moves):
                first.setdefault(kind, n)
            moves.sort(key=lambda item: first[item[0]])
        moves.sort(key=lambda item: any(read.is_target for read in inputs_of(item[1])))
        return [
            (kind, [move for _, move in group])
            for kind, group in groupby(moves, key=lambda item: item[0])
        ]

    def _kind(self, move: Move) -> Kind:
        source = self.sources.get(move.target)
        if source is not None and move.target not in self.made_by_rules:
            ends = Ends(
                source.shape,
                source.dtype,
                source.weak_type,
                source.sharding,
                self.targets[move.target],
            )
            if together.planned_for(ends) is not None:
                return ends
        ends_of = [self.sources[name].sharding for name, _ in move.sources]
        devices = {
            d for end in (*ends_of, self.targets[move.target]) for d in end.mesh.devices.flat
        }
        if all(map(in_memory, devices)):
            return _Apart(None, in_memory=True)
        reads = {read: n for n, read in enumerate(inputs_of(move))}
        transfers = tuple(
            (
                x.sender,
                x.receiver,
                reads.get(Array(x.source or "", is_target=x.phase > 0)),
                x.view,
                x.dtypes,
                x.phase,
                x.reduction,
            )
            for x in transfers_to(self.plan, move)
        )
        flags = [
            (self.sources[name].weak_type, name in self.plan.reductions) for name, _ in move.sources
        ]
        return _Apart((transfers, self.targets[move.target], tuple(flags)), in_memory=False)

    def _fitted(self, kind: Kind, moves: Sequence[Move], alive: Bytes) -> _Fitted:
        """As many of these moves as have room, in the fastest way that has; else the least."""
        most = max(1, BATCH_BYTES // max(1, int(self._target(moves[0]).sum())))
        count = 1 << (min(most, MOST, len(moves)).bit_length() - 1)
        counts = [count >> n for n in range(count.bit_length())]
        least: _Fitted | None = None
        for number, way in [*((n, WAYS[0]) for n in counts), *((1, way) for way in WAYS[1:])]:
            viewed = isinstance(kind, Ends) and kind.is_view
            targets = self._nothing() if viewed else self._target(moves[0]) * number
            if number > 1 and not self._fits(alive + targets):
                continue
            program = self._program(kind, moves[:number], way)
            if program is None:
                continue
            run, scratch = program
            fitted = _Fitted(run, number, targets, alive + targets + scratch)
            if self._fits(fitted.needed):
                return fitted
            if least is None or fitted.needed.max() < least.needed.max():
                least = fitted
        assert least is not None  # one array, in the first way, is always a program
        return least

    def _fits(self, needed: Bytes) -> bool:
        return self.budget is None or int(needed.max(initial=0)) <= self.budget

    def _program(self, kind: Kind, moves: Sequence[Move], way: Way) -> tuple[Run, Bytes] | None:
        """What makes the targets of equal moves, and what it allocates beside them.

        None where they do not fall into so many chunks.
        """
        if isinstance(kind, Ends):
            reads = [Array(move.target, is_target=False) for move in moves]
            if kind.is_view:
                put, none = partial(jax.device_put, device=kind.target), self._nothing()
                return (lambda arrays: [put(arrays[read]) for read in reads]), none
            compiled = self._on_mesh(kind, len(moves), way)
            if compiled is None:
                return None
            together_, scratch = compiled
            return (lambda arrays: together_(*(arrays[read] for read in reads))), scratch
        inputs = {read: self._sharding(read) for move in moves for read in inputs_of(move)}
        results = {move.target: self._result(move) for move in moves}
        reduced = {
            read: meshes.reduced(self.plan.reductions[read.name], inputs[read])
            for read in inputs
            if not read.is_target and read.name in self.plan.reductions
        }
        inputs |= {read: sharding for read, (_, sharding) in reduced.items()}
        scratch = self._nothing()
        if kind.in_memory:
            program = between(self.plan, moves, inputs, results)
        else:
            tile = max(1, self.plan.dst[moves[0].target].tile_bytes)
            most = CHUNK if way.chunks == 1 else -(-tile // way.chunks)
            key = kind, len(moves), way
            if key not in self.unions:
                self.unions[key] = Union.of(self.plan, moves, inputs, results, most)
            program = self.unions[key].program(self.plan, moves, results)
            scratch = self._beside(moves, list(inputs), min(most, tile * len(moves)))

        def run(arrays: Arrays) -> Sequence[jax.Array]:
            sums = {read: reduce(arrays[read]) for read, (reduce, _) in reduced.items()}
            return program({**arrays, **sums})

        return run, scratch

    def _on_mesh(self, ends: Ends, count: int, way: Way) -> tuple[Together, Bytes] | None:
        """The program of so many equal arrays on one mesh, and what it allocates beside them."""
        key = ends, count, way
        if key not in self.on_mesh:
            self.on_mesh[key] = together.program_of(ends, count, way)
        program = self.on_mesh[key]
        scratch = self._nothing()
        if program is None:
            return None
        if self.budget is None:
            return program, scratch
        if program.temp_bytes < 0:
            program = self.on_mesh[key] = program.compiled(count)
        ids = [self.place[device.id] for device in ends.source.mesh.devices.flat]
        scratch[ids] = program.temp_bytes
        return program, scratch

    def _beside(self, moves: Sequence[Move], reads: Sequence[Array], most: int) -> Bytes:
        """What a program on all devices allocates beside its targets.

        Tiles that nobody reads, for devices without a source or a target, and one box that is sent
        and one that is received. Both ends are held as integers too, where XLA wants them so.
        """
        beside = np.full(len(self.place), 2 * most, np.int64)
        for read in reads:
            t = self.plan.dst[read.name] if read.is_target else self.plan.source_type(read.name)
            beside += t.tile_bytes - self._bytes(t)
        for move in moves:
            t = self.plan.dst[move.target]
            beside += t.tile_bytes - self._bytes(t)
        return beside

    def _sharding(self, read: Array) -> NamedSharding:
        return self.targets[read.name] if read.is_target else self.sources[read.name].sharding

    def _result(self, move: Move) -> Result:
        """What the target of a move is: in a map as its type says, else as its source is."""
        source = self.sources.get(move.target)
        if source is None or move.target in self.made_by_rules:
            return Result(self.targets[move.target], numpy_dtype(self.plan.dst[move.target].dtype))
        return Result(self.targets[move.target], source.dtype, source.weak_type)

    def _target(self, move: Move) -> Bytes:
        return self._bytes(self.plan.dst[move.target])

    def _bytes(self, t: AnyType) -> Bytes:
        """The tiles of an array, by device."""
        result = self._nothing()
        result[[self.place[device] for device in t.mesh.ids]] = t.tile_bytes
        return result

    def _nothing(self) -> Bytes:
        return np.zeros(len(self.place), np.int64)
