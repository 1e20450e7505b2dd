"""A redistribution between ranks: made once, called often; all ranks succeed or raise together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import numpy as np
from mpi4py import MPI
from numpy.typing import DTypeLike

from redistrib.backends.mpi.agreement import Watch, private
from redistrib.backends.mpi.exchange import End, Phase
from redistrib.backends.mpi.layouts import AnyType, UnevenType, largest_tile
from redistrib.backends.mpi.phases import between, phases_of
from redistrib.backends.mpi.shared import SharedTiles
from redistrib.backends.mpi.transport import Datatypes, Link, Tile, Transfer
from redistrib.errors import BackendError, LayoutError
from redistrib.synth.plan.data import Plan
from redistrib.synth.plan.profile import Profile
from redistrib.synth.planner.problem import Strategy
from redistrib.types.array_type import ArrayType

SCRATCH = 1 << 20
"""Scratch unless another is asked for; the default is a twentieth of a tile more."""


class Redistribution:
    """Moves tiles from one type to another between the ranks of a communicator.

    Made collectively, and called collectively. Rank r has the mesh position r. Where the types are
    on two meshes, the device ids of a mesh are ranks; `src_ranks` and `dst_ranks` name, per
    position, the rank that has it, and may be different ranks. A rank without a tile passes None.

    dtype: numpy dtype of the tiles where the types' own does not name it (structured, datetime64,
        any size); data is moved as opaque bytes. Not with reductions.
    scratch: bytes per rank for packing and reducing, beside source and target; by default 1 MiB and
        a twentieth of the largest tile. At least 4 KiB are used per message in flight;
        `scratch_bytes` says what is in use.
    shared: the result is always the array `out`, in memory that the ranks of a node share: what a
        rank has for another of its node is copied once, straight into place, and only what goes to
        other nodes is sent. Each call overwrites it, once all ranks are in that call.
    timeout: seconds without progress, the same on all ranks, after which the call raises on those
        that wait, with the step and the ranks that do not answer. The communicator is of no use
        then; whether to call comm.Abort is up to the program. By default a call waits for ever, as
        MPI does.

    Raises on every rank, the same error, if it fails on one or the ranks were given different
    problems: LayoutError, InfeasibleError, or BackendError with the attribute `rank`.
    """

    plan: Plan | None
    """The plan, which the steps are fused from; None between two meshes and for uneven tiles."""
    out: Tile | None
    """The result of every call where it is `shared`; else, and on ranks without a target, None."""

    def __init__(
        self,
        src: AnyType,
        dst: AnyType,
        comm: MPI.Intracomm,
        strategy: Strategy = "auto",
        *,
        memory_limit: int | None = None,
        profile: Profile | str | None = None,
        src_ranks: Sequence[int] | None = None,
        dst_ranks: Sequence[int] | None = None,
        dtype: DTypeLike | None = None,
        scratch: int | None = None,
        timeout: float | None = None,
        shared: bool = False,
    ) -> None:
        def make() -> Plan | None:
            from redistrib.synth.planner.choose import plan

            uneven = isinstance(src, UnevenType) or isinstance(dst, UnevenType)
            if uneven or src.mesh != dst.mesh or self._ranks[0] != self._ranks[1]:
                _check_ends(src, dst)
                return None
            assert isinstance(src, ArrayType)
            assert isinstance(dst, ArrayType)
            return plan(src, dst, strategy=strategy, memory_limit=memory_limit, profile=profile)

        ranks = src_ranks, dst_ranks
        self._start(comm, src, dst, make, ranks, dtype, scratch, timeout, shared)

    @classmethod
    def from_plan(
        cls,
        plan: Plan,
        comm: MPI.Intracomm,
        *,
        dtype: DTypeLike | None = None,
        scratch: int | None = None,
        timeout: float | None = None,
        shared: bool = False,
    ) -> Self:
        """The redistribution that runs a plan. Collective."""
        self = cls.__new__(cls)
        ends = plan.src, plan.dst
        self._start(comm, *ends, lambda: plan, (None, None), dtype, scratch, timeout, shared)
        return self

    def _start(
        self,
        comm: MPI.Intracomm,
        src: AnyType,
        dst: AnyType,
        make: Callable[[], Plan | None],
        ranks: tuple[Sequence[int] | None, Sequence[int] | None],
        dtype: DTypeLike | None,
        scratch: int | None,
        timeout: float | None,
        shared: bool,
    ) -> None:
        owned = private(comm)
        self.comm = owned.comm
        self.out = None
        self._shared: SharedTiles | None = None
        self._link = Link(owned.comm, owned.next_tag(), Datatypes())
        self.watch = Watch(owned, None)
        self._phases: list[Phase] = []
        self._running: Running | None = None
        error: Exception | None = None
        text = given = ""
        try:
            if timeout is not None and not timeout > 0:
                raise BackendError(
                    f"timeout is a number of seconds above 0, or None; got {timeout}",
                    timeout=timeout,
                )
            self.watch.timeout = timeout
            self.src, self.dst = src, dst
            self._ranks = _ranks_of(src, dst, ranks, comm.size)
            self.plan = make()
            self.dtype = _dtype_of(src, dst, dtype)
            if scratch is None:
                largest = max(largest_tile(src), largest_tile(dst)) * self.dtype.itemsize
                scratch = SCRATCH + largest // 20
            if scratch < 1:
                raise BackendError(f"scratch is at least 1 byte; got {scratch}", scratch=scratch)
            given = f"{src} -> {dst} of {self.dtype}"
            if self._ranks[0] != self._ranks[1]:
                given += f" from ranks {list(self._ranks[0])} to {list(self._ranks[1])}"
            planned = "" if self.plan is None else self.plan.to_json()
            given += " into shared tiles" * shared
            if timeout is not None:
                given += f" with a timeout of {timeout:g} s"
            text = f"{given} {self.src.mesh} {self.dst.mesh} {scratch} {planned}"
        except Exception as raised:  # noqa: BLE001 - the other ranks must hear of it
            error = raised
        step = "the agreement on the problem"
        self.watch.agree(error, text, step, given)
        self.watch.agreed = True
        try:
            self._phases = list(self._make_phases(scratch or 0))
            if shared:
                tiles = owned.near, self._targets, self.dtype
                self._shared = SharedTiles(owned.node, *tiles)
        except Exception as raised:  # noqa: BLE001
            error = raised
        self.watch.agree(error, "", step)
        sent = np.array([phase.sent_bytes > 0 for phase in self._phases], np.int8)
        anywhere = np.empty_like(sent)
        owned.comm.Allreduce(sent, anywhere, MPI.MAX)
        for phase, communicates in zip(self._phases, anywhere, strict=True):
            phase.communicates = bool(communicates)
        if self._shared is not None:
            self._connect(self._shared, step)

    def _connect(self, shared: SharedTiles, step: str) -> None:
        """From now on the result is in shared memory."""
        error: Exception | None = None
        try:
            shared.connect()
        except Exception as raised:  # noqa: BLE001
            error = raised
        self.watch.agree(error, "", step)
        shared.close()
        self.out = shared.tiles.get(self.comm.rank)
        if self._phases:
            self._phases[-1].share(shared)

    def _make_phases(self, scratch: int) -> Iterator[Phase]:
        before, after = (
            End.on(t, ranks, self.comm.size)
            for t, ranks in zip((self.src, self.dst), self._ranks, strict=True)
        )
        self._targets = [after.shape(rank) for rank in range(self.comm.size)]
        self._shapes = before.shape(self.comm.rank), self._targets[self.comm.rank]
        if self.plan is None:
            yield between(before, after, self._link, self.dtype, scratch)
        else:
            yield from phases_of(self.plan, before.positions, self._link, self.dtype, scratch)

    @property
    def received_bytes(self) -> int:
        """What this rank receives from others for one array, counted from its messages."""
        return sum(phase.received_bytes for phase in self._phases)

    @property
    def sent_bytes(self) -> int:
        """What this rank sends to others for one array, counted from its messages."""
        return sum(phase.sent_bytes for phase in self._phases)

    @property
    def scratch_bytes(self) -> int:
        """What this rank keeps for packing and reducing, in bytes."""
        return sum(phase.scratch_bytes for phase in self._phases)

    @property
    def num_collectives(self) -> int:
        """Communicating phases of a call."""
        return sum(phase.communicates for phase in self._phases)

    def __call__(self, tile: Tile | None, out: Tile | None = None) -> Any:
        """This rank's tile of the target from its tile of the source. Collective.

        Tiles have the types' tile shapes and dtype, and any strides (one that runs backwards is
        copied first); a new one is C-ordered. `out`
        receives the result, shares no memory with the tile, and is returned. A rank that is not in
        the target returns None. Raises on every rank if one was given something else; nothing has
        been sent then.
        """
        return self._run([tile], [out], blocking=True).wait()[0]

    def start(self, tile: Tile | None, out: Tile | None = None) -> Running:
        """Begin a call; `wait()` ends it and returns a list of one tile. Collective.

        The ranks agree first, which takes a few microseconds once all have come. Neither tile may
        be touched before the end. MPI makes progress while `test` or `wait` runs.
        """
        return self._run([tile], [out], blocking=False)

    def batch(
        self, tiles: Sequence[Tile | None], outs: Sequence[Tile | None] | None = None
    ) -> list[Any]:
        """Several arrays of the same types at once: one agreement, and messages shared."""
        return self._run(tiles, outs or [None] * len(tiles), blocking=True).wait()

    def _run(
        self, tiles: Sequence[Tile | None], outs: Sequence[Tile | None], *, blocking: bool
    ) -> Running:
        error: Exception | None = None
        levels: list[list[Tile | None]] = []
        results: list[Tile | None] = []
        try:
            if not self._link.datatypes.open:
                raise BackendError("the redistribution was freed")
            if self._running is not None and not self._running.done:
                raise BackendError("one call runs at a time; wait for the one that was started")
            # All memory is taken before anything is sent.
            results = self._results(tiles, outs)
            levels = self._levels(tiles, results)
        except Exception as raised:  # noqa: BLE001
            error = raised
        # A small array goes by another collective where the caller waits: all have to do the same.
        begun = "a call" if blocking else "a start"
        call = f"{begun} of redistribution {self._link.tag} with {len(tiles)} arrays"
        self.watch.agree(error, call, "the agreement before the exchange", call)
        wait = blocking and self.watch.timeout is None
        self._running = Running(self, self._transfer(levels, results, blocking=wait), results)
        return self._running

    def _results(
        self, tiles: Sequence[Tile | None], outs: Sequence[Tile | None]
    ) -> list[Tile | None]:
        """What the call returns, made where no `out` is given."""
        if len(outs) != len(tiles):
            raise BackendError(f"each tile has its out; got {len(tiles)} and {len(outs)}")
        if self._shared is not None:
            if len(outs) != 1 or not (outs[0] is None or outs[0] is self.out):
                raise BackendError("a shared result is the array `out`: one, and no other is given")
            outs = [self.out]
        for tile, out in zip(tiles, outs, strict=True):
            _check(tile, self.src, self._shapes[0], self.dtype, "tile")
            if out is None:
                continue
            _check(out, self.dst, self._shapes[1], self.dtype, "out")
            if not out.flags.writeable:
                raise BackendError("out is writeable; got a read-only array")
            if any(t is not None and np.may_share_memory(out, t) for t in tiles):
                raise BackendError("out shares no memory with a tile")
        shape = self._shapes[1]
        return [
            np.empty(shape, self.dtype) if out is None and shape is not None else out
            for out in outs
        ]

    def _levels(
        self, tiles: Sequence[Tile | None], results: Sequence[Tile | None]
    ) -> list[list[Tile | None]]:
        """The arrays before, between and after the phases."""
        levels = [[_forwards(tile) for tile in tiles]]
        for phase in self._phases[:-1]:
            shape = phase.after.shapes()[self.comm.rank]
            levels.append([np.empty(shape, self.dtype) for _ in tiles])
        return [*levels, [_forwards(result) for result in results]]

    def _transfer(
        self,
        levels: Sequence[list[Tile | None]],
        results: Sequence[Tile | None],
        *,
        blocking: bool,
    ) -> Transfer:
        """All phases of a call."""
        for number, phase in enumerate(self._phases):
            self.step = f"{phase.name} ({number + 1} of {len(self._phases)})"
            yield from phase.run(levels[number], levels[number + 1], blocking=blocking)
        made = levels[-1] if self._phases else levels[0]
        for result, array in zip(results, made, strict=True):
            if result is not None and result is not array:
                result[...] = array

    def free(self) -> None:
        """Release the datatypes. Local; a call after it raises."""
        self._link.datatypes.free()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.free()


class Running:
    """A call that was started."""

    def __init__(
        self,
        owner: Redistribution,
        transfer: Transfer,
        results: list[Tile | None],
    ) -> None:
        self._owner, self._transfer, self._results = owner, transfer, results
        self._waiting = next(transfer, None)

    @property
    def done(self) -> bool:
        """Whether the call is known to be at its end."""
        return self._waiting is None

    def test(self) -> bool:
        """Whether the call is at its end, after what can be done without waiting."""
        while self._waiting is not None:
            done = MPI.Request.Testsome(self._waiting.requests)
            if not done:
                return False
            self._advance(done)
        return True

    def wait(self) -> list[Any]:
        """The results, once they are complete."""
        while self._waiting is not None:
            self._advance(self._owner.watch.some(self._waiting, self._owner.step))
        return self._results

    def _advance(self, done: list[int]) -> None:
        try:
            self._waiting = self._transfer.send(done)
        except StopIteration:
            self._waiting = None


def _forwards(tile: Tile | None) -> Tile | None:
    """The tile, or a copy in memory order if it runs backwards.

    Open MPI 5.0 sends reversed bytes in their order in memory, whatever the datatype says.
    """
    if tile is not None and any(stride < 0 for stride in tile.strides):
        return np.ascontiguousarray(tile)
    return tile


def _dtype_of(src: AnyType, dst: AnyType, dtype: DTypeLike | None) -> np.dtype[Any]:
    """The dtype of the tiles."""
    if dtype is None:
        return src.numpy_dtype
    found = np.dtype(dtype)
    if found.hasobject:
        raise BackendError(f"elements are bytes without references; got dtype {found}", dtype=found)
    partial = any(isinstance(t, ArrayType) and t.partial for t in (src, dst))
    if partial and found != src.numpy_dtype:
        raise BackendError(
            f"a reduction is over the types' dtype, {src.numpy_dtype}; got {found}", dtype=found
        )
    return found


def _check_ends(src: AnyType, dst: AnyType) -> None:
    """Raise LayoutError unless an exchange can lead from one end to the other."""
    if (src.shape, src.dtype) != (dst.shape, dst.dtype):
        raise LayoutError(
            f"source and target have one shape and dtype; got {src} and {dst}", src=src, dst=dst
        )
    if isinstance(dst, ArrayType) and dst.partial:
        raise LayoutError(
            f"between two sets of ranks, and of uneven tiles, the target is not partial; got {dst}",
            dst=dst,
        )
    if isinstance(src, ArrayType) and src.partial and isinstance(dst, UnevenType):
        raise LayoutError(f"uneven tiles are not reduced; got the source {src}", src=src)


def _ranks_of(
    src: AnyType,
    dst: AnyType,
    given: tuple[Sequence[int] | None, Sequence[int] | None],
    size: int,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Per position of either mesh the rank that has it."""
    one, other = given
    if src.mesh == dst.mesh:
        # Without other word, each rank has the position of its number.
        default = one or other or range(src.mesh.num_devices)
        if one is None and other is None and size != src.mesh.num_devices:
            raise BackendError(
                f"the mesh {src.mesh} has {src.mesh.num_devices} positions, one for each rank; "
                f"the communicator has {size} ranks",
                size=size,
            )
        return _checked(one or default, src, size), _checked(other or default, dst, size)
    return (
        _checked(one or src.mesh.ids, src, size),
        _checked(other or dst.mesh.ids, dst, size),
    )


def _checked(given: Sequence[int], t: AnyType, size: int) -> tuple[int, ...]:
    """The ranks of a mesh, one for each position."""
    ranks = tuple(int(rank) for rank in given)
    if len(ranks) != t.mesh.num_devices or len(set(ranks)) != len(ranks):
        raise BackendError(
            f"each of the {t.mesh.num_devices} positions of {t.mesh} has a rank of its own; "
            f"got {list(ranks)}",
            ranks=ranks,
        )
    if min(ranks) < 0 or max(ranks) >= size:
        raise BackendError(
            f"the ranks of {t.mesh} are 0 to {size - 1}, those of the communicator; "
            f"got {list(ranks)}",
            ranks=ranks,
        )
    return ranks


def _check(
    tile: Any, t: AnyType, shape: tuple[int, ...] | None, dtype: np.dtype[Any], name: str
) -> None:
    """Raise BackendError unless a buffer is this rank's tile of a type."""
    if shape is None:
        if tile is not None:
            raise BackendError(f"{name} is None on a rank that has no tile of {t}")
        return
    if not isinstance(tile, np.ndarray):
        raise BackendError(f"{name} is a numpy array; got {type(tile).__name__}")
    if tile.shape != shape or tile.dtype != dtype:
        raise BackendError(
            f"{name} is a tile of {t}, of shape {list(shape)} and dtype {dtype}; "
            f"got shape {list(tile.shape)} and dtype {tile.dtype}",
            shape=tile.shape,
            dtype=tile.dtype,
        )
