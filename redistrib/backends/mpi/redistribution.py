"""A redistribution between ranks: made once, called often; all ranks succeed or raise together.

    with Redistribution(src, dst, comm) as to_columns:
        columns = to_columns(rows)

On 2 ranks, with `f64[4{x}, 6]` as source and `f64[4, 6{x}]` as target, each gives its tile of 2 x
6, sends half of it to the other, and gets a tile of 4 x 3. Made: all ranks agree on the problem
(`problem`), plan, and prepare the messages of each phase (`phases`). Called: the arrays are checked
(`call_arrays`), then the phases run, waited for in one place (`calls`, `agreement`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Self

import numpy as np
from mpi4py import MPI
from numpy.typing import DTypeLike

from redistrib.backends.mpi.agreement import Watch
from redistrib.backends.mpi.call_arrays import CallArrays
from redistrib.backends.mpi.calls import (
    Running,
    by_steps,
    call_of,
    end_all,
    fused,
    settle_meetings,
)
from redistrib.backends.mpi.checks import (
    C_ORDER,
    F_ORDER,
    Index,
    memory_order,
    usable_timeout,
)
from redistrib.backends.mpi.communicators import check_alone, claimed, private, slot_of
from redistrib.backends.mpi.datatypes import Datatypes, Tile
from redistrib.backends.mpi.exchange import Phase, Tiles
from redistrib.backends.mpi.faults import Operation
from redistrib.backends.mpi.flows import Channel
from redistrib.backends.mpi.options import Check, Options
from redistrib.backends.mpi.problem import PlanFinder, Problem, planner
from redistrib.backends.mpi.repeated_call import Reference, RepeatedCall, reference
from redistrib.backends.mpi.requests import Transfer
from redistrib.backends.mpi.shared import SharedTiles
from redistrib.errors import BackendError
from redistrib.synth.plan.data import Plan
from redistrib.synth.plan.profile import Profile
from redistrib.synth.planner.problem import Strategy
from redistrib.types.array_type import ArrayType
from redistrib.types.named_sharding import TypeLike, as_types

MAKING = "the agreement on the problem"
CALLING = "the agreement before the exchange"
CHECKING = "the agreement that no call has failed"


class Redistribution:
    """Moves tiles from one type to another between the ranks of a communicator.

    Made collectively, and called collectively. The device ids of a mesh are ranks: without a device
    order, rank r has the position r. `src_ranks` and `dst_ranks` name, per position of the source's
    and the target's mesh, another rank that has it. A rank without a tile passes None.

    It fuses: all steps of its plan that only move data run as one exchange, at the lower bound of
    traffic, and the plan says which route the same problem would take on an accelerator. What the
    plan says of traffic and memory holds for `from_plan(plan, comm, fuse=False)`.

    strategy, memory_limit, profile: of the plan, as for `redistrib.plan`; the limit is in bytes per
        device. Between two sets of ranks only "auto" has a choice: one exchange, or parts that the
        ranks of the target gather. On one node it takes the exchange unless a profile is given,
        since the default one is not of memory that all ranks share.
    src_index, dst_index: sub-arrays of one shape, a slice of step 1 per dimension of the global
        arrays (`np.s_[2:6, :]`): `dst[dst_index] = src[src_index]`, in tiles of the whole arrays,
        whose shapes may differ. With a dst_index `out` is given, and keeps its other elements.
    dtype: numpy dtype of the tiles where the types' own does not name it (structured, datetime64,
        any size); data is moved as opaque bytes. Not with reductions.
    scratch: bytes per rank for packing and reducing, beside source and target; by default 1.75
        MiB and an eleventh of the largest tile. At least 4 KiB are used per message in flight;
        `scratch_bytes` says what is in use.
    shared: the result is always the array `out`, in memory that the ranks of a node share: what a
        rank has for another of its node is copied once, straight into place, and only what goes to
        other nodes is sent. Each call overwrites it, once all ranks are in that call.
    timeout: seconds without progress, the same on all ranks, after which making or a call raises on
        those that wait, with the step and the ranks that do not answer. The communicator is of no
        use then, what was to be read or written is kept as long as the process lives, and `out` is
        not to be used; whether to call comm.Abort is up to the program. By default a call waits for
        ever, as MPI does.

    op: of a reduction, in place of the type's: a numpy ufunc of two arguments (np.bitwise_or,
        np.logical_and), or a function op(a, b) of two arrays that gives a third; associative. It
        is taken in rank order.
    accumulate: dtype in which a reduction adds up, and is then rounded once: "f4" for bf16 and f16.
    check: "all": before each call all ranks agree that none has an error, so that they all raise
        together, with nothing sent. "peers": no rank waits for another that it needs nothing from.
        If a call fails on a rank, those that need it raise in that call, any other at the next
        point where all ranks meet: the first call of a redistribution, a batch, the making of one,
        `check_calls`, or the call after an error. "none": as "peers", and what is given is not
        looked at, for loops known to be right.

    One thread at a time may use a communicator; two at once are an error on all ranks.

    Raises on every rank, the same error, if it fails on one or the ranks were given different
    problems: LayoutError, InfeasibleError, or BackendError with the attribute `rank`.
    """

    plan: Plan | None
    """What the steps are fused from; None of sub-arrays, and on other ranks without replicas."""
    out: Tile | None
    """The result of every call where it is `shared`; else, and on ranks without a target, None."""
    src_position: int | None
    """The position of this rank in the source's mesh, if it has one."""
    dst_position: int | None
    """The position of this rank in the target's mesh, if it has one."""
    received_bytes: int
    """Bytes that this rank receives from others for one array."""
    sent_bytes: int
    """Bytes that this rank sends to others for one array."""
    scratch_bytes: int
    """Bytes that this rank keeps for packing and reducing."""
    num_collectives: int
    """Communicating phases of a call."""

    def __init__(
        self,
        src: TypeLike,
        dst: TypeLike,
        comm: MPI.Intracomm,
        *,
        strategy: Strategy = "auto",
        memory_limit: int | None = None,
        profile: Profile | str | None = None,
        src_ranks: Sequence[int] | None = None,
        dst_ranks: Sequence[int] | None = None,
        src_index: Index = None,
        dst_index: Index = None,
        dtype: DTypeLike | None = None,
        scratch: int | None = None,
        timeout: float | None = None,
        shared: bool = False,
        check: Check = "peers",
        op: Callable[..., Any] | None = None,
        accumulate: DTypeLike | None = None,
    ) -> None:
        places = src_ranks, dst_ranks, src_index, dst_index
        options = Options(*places, dtype, scratch, timeout, shared, True, check, op, accumulate)
        self._make(
            comm, lambda: as_types(src, dst), planner(strategy, memory_limit, profile), options
        )

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
        fuse: bool = True,
        check: Check = "peers",
        op: Callable[..., Any] | None = None,
        accumulate: DTypeLike | None = None,
    ) -> Self:
        """The redistribution of a plan. Collective.

        fuse: False runs the steps of the plan one by one, within the groups that they name, each
            into a tile of its own, which the ranks agree on first. Received, sent and live bytes
            are then those of the plan; an all_reduce and its chunks are cut along one dimension.
            Not with `start`. By default steps that only move data are one exchange, which takes
            less time and no tile in between, and receives the plan's `lower_bound_bytes`.
        """
        self = cls.__new__(cls)
        settings = dtype, scratch, timeout, shared, fuse, check, op, accumulate
        options = Options(None, None, None, None, *settings)
        self._make(comm, lambda: (plan.src, plan.dst), lambda *_: plan, options)
        return self

    def _make(
        self,
        comm: MPI.Intracomm,
        find_ends: Callable[[], tuple[ArrayType, ArrayType]],
        find_plan: PlanFinder,
        options: Options,
        under_way: list[Running] | None = None,
    ) -> None:
        """Agree on the problem, make the phases, agree that all have them."""
        with claimed(comm) as contended:
            self.watch = Watch(private(comm, usable_timeout(options.timeout)), None)
            owned = self.watch.private
            self.comm, self._given_comm = owned.comm, comm
            self.out = None
            self._shared: SharedTiles | None = None
            self._under_way: list[Running] = [] if under_way is None else under_way
            self._repeated: RepeatedCall | None = None
            self._latest: tuple[Reference, Reference] | None = None  # arrays of the latest call
            self._lent: list[tuple[Tile, Redistribution]] = []
            self._phases: list[Phase] = []
            self._reverse = False
            self._order: int | None = None
            self._channel = Channel(owned.comm, Datatypes(), owned.packs)

            def settle() -> tuple[str, str, int]:
                src, dst = self.src, self.dst = find_ends()
                ranks = self.comm.size, len(owned.node_ranks) == self.comm.size
                problem = Problem.of(src, dst, find_plan, options, *ranks)
                self._problem, self._channel.adding = problem, problem.adding
                return problem.in_full, problem.for_people, 0

            self.watch.attempt(settle, MAKING, contended)
            self._describe()
            self._number = owned.next_number()  # the same on all ranks, as they have agreed

            def build() -> None:
                self._phases = self._problem.phases(self._channel)
                if options.shared:
                    tiles = owned.node_ranks, self._targets, self.dtype
                    self._shared = SharedTiles(owned.node, *tiles)
                check_alone(comm)

            self.watch.attempt(build, MAKING)
            self._connect()
            self._count()

    def _describe(self) -> None:
        """What is known of the problem once all ranks agree on it."""
        problem, rank = self._problem, self.comm.rank
        before, after = problem.ends(self.comm.size)
        self.src_position, self.dst_position = before.positions[rank], after.positions[rank]
        self._targets = {other: after.shape(other) for other in self.watch.private.node_ranks}
        self._arrays = CallArrays(problem, rank, (before.shape(rank), after.shape(rank)))
        self.plan, self.dtype = problem.plan, problem.dtype
        self.fused, self._check = problem.options.fuse, problem.options.check
        self.watch.timeout = problem.options.timeout

    def _connect(self) -> None:
        """From now on the result is in shared memory, if it is to be."""
        shared = self._shared
        if shared is None:
            return
        self.watch.attempt(shared.connect, MAKING)
        shared.close()
        self.out = shared.tiles.get(self.comm.rank)
        self._arrays.shared, self._arrays.out = True, self.out
        if self._phases:
            self._phases[-1].share(shared)

    def _count(self) -> None:
        """Add up what the phases move; the ranks agree on which of them communicate."""
        sent = np.array([phase.sent_bytes > 0 for phase in self._phases], np.int8)
        anywhere = np.empty_like(sent)
        self.watch.together(self.comm.Iallreduce(sent, anywhere, MPI.MAX), MAKING)
        for phase, communicates in zip(self._phases, anywhere, strict=True):
            phase.communicates = bool(communicates)
        self.received_bytes = sum(phase.received_bytes for phase in self._phases)
        self.sent_bytes = sum(phase.sent_bytes for phase in self._phases)
        self.scratch_bytes = sum(phase.scratch_bytes for phase in self._phases)
        self.num_collectives = sum(phase.communicates for phase in self._phases)
        self._names = ", ".join(phase.name for phase in self._phases) or "nothing"

    def __call__(self, tile: Tile | None, out: Tile | None = None) -> Any:
        """This rank's tile of the target from its tile of the source. Collective.

        Tiles are numpy arrays (of a subclass only memmap) of the types' tile shapes and dtype, with
        any strides (one that runs backwards is copied first); fastest is one order, C or F, on all
        ranks. A new tile has the order of the one given. `out` receives the result, shares no
        memory with the tile, or is the tile in an all-reduce, and is returned. A rank that is not
        in the target returns None. If a rank was given something else, `check` says who raises;
        `out` is undefined then.
        """
        repeated = self._repeated
        if repeated is not None and not self._under_way and repeated(tile, out):
            return out
        [result] = self._run([tile], [out]).wait()
        alone = self.fused and self._check != "all" and self._at_once()
        if alone and result is out and not self._lent:
            latest = self._latest
            if latest is not None and latest[0]() is tile and latest[1]() is result:
                call = slot_of(self._given_comm), self._phases[0], tile, out, self._number
                self._repeated = RepeatedCall.of(self.watch, *call, looks=self._check != "none")
            self._latest = reference(tile), reference(out)
        return result

    def start(self, tile: Tile | None, out: Tile | None = None) -> Running:
        """Begin a call; `wait()` ends it and returns a list of one tile. Collective.

        It waits for nobody. Neither tile may be touched before the end. MPI makes progress while
        `test` or `wait` runs. Several may be in flight, in one order, but of a `shared` result.
        """
        return self._run([tile], [out], starts=True)

    def batch(
        self, tiles: Sequence[Tile | None], outs: Sequence[Tile | None] | None = None
    ) -> list[Any]:
        """Several arrays of the same types at once, agreed on first."""
        return self._run(tiles, outs or [None] * len(tiles), meets=True).wait()

    def empty(self) -> Tile:
        """An array for `out` in memory that the ranks of a node share. Collective.

        A call in which all ranks give theirs copies once, straight into place, as one that is
        `shared` does. Each array is another, with what it held; the memory goes with the last of
        `free` and the array. On a rank without a target it has no elements, and is given too.
        """
        with claimed(self._given_comm) as contended:
            self.watch.meet(MAKING, contended or self._refused(starts=False))
        twin = type(self).__new__(type(self))
        makers = lambda: (self.src, self.dst), lambda *_: self.plan
        options = replace(self._problem.options, shared=True)
        twin._make(self._given_comm, *makers, options, self._under_way)
        lent = np.empty(0, self.dtype) if twin.out is None else twin.out
        self._lent.append((lent, twin))
        return lent

    def check_calls(self) -> None:
        """Raise the error of a call on the ranks that did not take part in it. Collective.

        Where all ranks have raised it, or there was none, nobody does.
        """
        with claimed(self._given_comm) as contended:
            self.watch.meet(CHECKING, contended)

    def _run(
        self, tiles: Tiles, outs: Tiles, *, starts: bool = False, meets: bool = False
    ) -> Running:
        for lent, twin in self._lent:
            if any(out is lent for out in outs):
                return Redistribution._run(twin, tiles, [None], starts=starts, meets=meets)
        with claimed(self._given_comm) as contended:
            settle_meetings(self.watch)
            operation = self.watch.begin(call_of(self._number, len(tiles)))
            results: list[Tile | None] = []
            error = contended or self._refused(starts)
            transfer = self._transfer(operation, tiles, outs, results, error, meets)
            before = self._under_way[-1] if self._under_way and error is None else None
            queue = self._under_way, before, self._at_once
            running = Running(transfer, results, self.watch, operation, *queue)
            self._under_way.append(running)
            if not starts:
                running.wait()
        return running

    def _refused(self, starts: bool) -> BackendError | None:
        """Why there can be no call now."""
        reason = None
        if not self._channel.datatypes.open:
            reason = "the redistribution was freed"
        elif self._under_way and self._shared is not None:
            reason = (
                "a call overwrites the shared result of another; wait for that which was started"
            )
        elif starts and not self.fused:
            reason = "steps run one by one in a call; start is of what is fused"
        return None if reason is None else BackendError(reason)

    def _transfer(
        self,
        operation: Operation,
        tiles: Sequence[Tile | None],
        outs: Sequence[Tile | None],
        results: list[Tile | None],
        error: BackendError | None,
        meets: bool,
    ) -> Transfer:
        """A call: alone, or with the agreement of all ranks where they meet."""
        levels: list[list[Tile | None]] = []

        def prepare() -> tuple[str, str, int]:
            results.extend(self._arrays.checked(tiles, outs))
            plain = self.fused and self._shared is None
            order = memory_order((*tiles, *results)) if plain else C_ORDER
            if self.fused:
                # All memory is taken before anything is sent.
                results[:] = [self._arrays.result(out, order) for out in results]
                levels.extend(self._arrays.levels(self._phases, tiles, results, order))
            return operation.text, operation.text, order

        watch = self.watch
        watch.step = CALLING
        meets = meets or self._order is None or not self.fused or self._check == "all"
        order = yield from watch.entered(operation, prepare, error, meets=meets)
        if self._order is None:
            self._order = order
            self._turn(order == F_ORDER)
        self._channel.tag = watch.private.tag(self._number)
        if self.fused:
            yield from fused(watch, self._phases, levels, results)
        else:
            make = partial(self._arrays.tiles_after, results)
            yield from by_steps(watch, self._phases, tiles, results, make)

    def _at_once(self) -> bool:
        return len(self._phases) == 1 and self._phases[0].at_once

    def _turn(self, reverse: bool) -> None:
        """See tiles with their dimensions in reverse, or not, as all ranks do from now on."""
        if reverse == self._reverse:
            return
        phases = self._problem.phases(self._channel, reverse=reverse)
        for old, new in zip(self._phases, phases, strict=True):
            new.communicates = old.communicates
        self._phases, self._reverse = phases, reverse

    def __repr__(self) -> str:
        steps = "no plan" if self.plan is None else f"a plan of {len(self.plan.steps)} steps"
        mode = "run one by one" if not self.fused else f"fused into {self._names}"
        return (
            f"<Redistribution {self.src} -> {self.dst} on {self.comm.size} ranks: {steps} {mode}>"
        )

    def free(self) -> None:
        """Release the datatypes, and the shared tiles but `out`. Local; a call after it raises.

        One that is under way is given up: its tiles are kept as long as the process lives.
        """
        for running in tuple(self._under_way):
            running.give_up()
        for _, twin in self._lent:
            twin.free()
        for phase in self._phases:
            phase.free()
        self._channel.datatypes.free()
        self._phases, self._shared, self._lent, self._repeated = [], None, [], None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End a call that is under way, then `free`.

        After an exception the others are given a second to do their part of it.
        """
        try:
            end_all(self._under_way, soon=kind is not None)
        finally:
            self.free()
