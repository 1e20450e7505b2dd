"""The checker of model plans: from the schedules of all devices alone.

Of `t = concat(0, a, b)` with a and b of 4 elements, on one device each, and t on a third: the
schedule of the third has two transfers, which write elements 0 to 3 and 4 to 7. The map says that
element 5 is element 1 of b; the view that writes it reads just that, and nothing writes an element
twice.

It shares nothing with the planner but types, weight maps and transfers as data. Transfers are
views of tiles, and many differ in their offsets alone: these are followed together, as what is
written and as what is read (redistrib.models.views), to elements of the sources. What must hold:

- both sides of a transfer have it, and whoever sends has what it sends;
- what is written comes from the element that the map names, through its dtypes, reduced where it is
  partial; zeros where the map pads, the identity of the reduction where a partial target has no
  value;
- every element of every target tile is written exactly once (redistrib.models.coverage), and what
  is passed on has been written by then;
- received and sent bytes, and the peak of memory, are those that the plan states.

The work is proportional to the number of transfers, not to that of elements: 72 billion elements of
Llama-3 70B are as quick as 72. Of moves that are alike, as those of a model's layers are, one is
followed (redistrib.models.alike).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from redistrib.checker.checker import check as check_plan
from redistrib.errors import CheckError
from redistrib.models.alike import Kind, Kinds, same_transfers
from redistrib.models.check_figures import check_peak, check_totals
from redistrib.models.coverage import MAX_CELLS, Strided, TooManyCellsError, all_written, fault
from redistrib.models.figures import ModelFigures
from redistrib.models.groups import RECEIVES, SENDS, Group, collected
from redistrib.models.interpret import Shape, interpret
from redistrib.models.moves import PHASES, Move
from redistrib.models.rule import Target
from redistrib.models.segments import AnyType
from redistrib.models.views import (
    READ,
    WRITTEN,
    Held,
    Origin,
    Origins,
    Views,
    elements,
    source_of,
)
from redistrib.types.array_type import ArrayType
from redistrib.types.dtypes import itemsize

Numbers = NDArray[np.int64]
MAX_TRANSFERS = 1 << 22
"""Of all devices and kinds of moves together: each takes some ten microseconds."""
MAX_PIECES = 1 << 20
"""Groups of views of one target that are straight: more come only of strides that do not fit."""


def check_model(plan: ModelFigures) -> None:
    """Check a plan of a whole model. Raises CheckError with the array and the reason."""
    try:
        _Check(plan).run()
    except CheckError:
        raise
    except Exception as error:  # whatever it is, the plan was not found to be right
        raise CheckError(f"malformed, {type(error).__name__}: {error}") from error


class _Followed(NamedTuple):
    """What the check of a move found: the numbers of the sources it uses, and bytes.

    Bytes are received, and sent, by the number of a device in its kind.
    """

    kind: Kind
    used: tuple[int, ...]
    bytes: Numbers


class _Check:
    """A plan under check, with what is derived of it once."""

    def __init__(self, plan: ModelFigures) -> None:
        self.plan = plan
        self.devices = np.array(plan.devices, np.int64)
        self.totals = np.zeros((2, len(self.devices)), np.int64)
        """Bytes received, and sent, by device."""
        self._held: dict[ArrayType, Held] = {}
        self._origins: dict[str, Origin] = {}
        self._covered: set[object] = set()
        self._transfers = 0

    def run(self) -> None:
        plan = self.plan
        self._check_reductions()
        shapes = {name: Shape(t.shape, t.dtype) for name, t in plan.src.items()}
        targets = plan.weights.targets(shapes)
        last = {name: n for n, move in enumerate(plan.moves) for name, _ in move.sources}
        kinds = Kinds(plan)
        followed: dict[object, _Followed] = {}
        for n, move in enumerate(plan.moves):
            if move.target in self._origins:
                raise CheckError(f"the target {move.target} is made twice", target=move.target)
            origin, sources = _origin(shapes, targets.get(move.target), move.target)
            target = plan.dst.get(move.target)
            if target is None or origin is None:
                raise CheckError(f"{move.target} is no target, or nothing makes it")
            if (origin.shape, origin.dtype) != (target.shape, target.dtype):
                raise CheckError(
                    f"{move.target}: the map makes {origin.dtype}{list(origin.shape)}; its type is "
                    f"{target}"
                )
            kind = kinds.of(move, origin.recipe, sources)
            like = followed.get(kind.key)
            if like is None or not same_transfers(plan, like.kind, kind, n):
                like = followed[kind.key] = self._follow(kind, origin)
            used = [kind.sources[number] for number in like.used]
            if early := [name for name in used if last.get(name, n) < n and not plan.keep_sources]:
                raise CheckError(f"{move.target}: {early[0]} is released before its last use")
            self.totals[:, np.searchsorted(self.devices, kind.devices)] += like.bytes
            self._origins[move.target] = origin
        if missing := plan.dst.keys() - self._origins.keys():
            raise CheckError(f"nothing makes the target {min(missing)}")
        check_totals(plan, self.totals)
        check_peak(plan)

    def _follow(self, kind: Kind, origin: Origin) -> _Followed:
        """Check all transfers of a move: what they use, and bytes by the devices of its kind."""
        move, number = kind.move, {name: n for n, name in enumerate(kind.sources)}
        groups, transfers = collected(self.plan, move, MAX_TRANSFERS - self._transfers)
        self._transfers += transfers
        self._check_values(move, origin, groups)
        self._check_coverage(move, groups)
        used = {number[str(g.like.source)] for g in groups if g.like.source in number}
        bytes_ = np.zeros((2, len(kind.devices)), np.int64)
        for group in groups:
            transfer_bytes = group.like.view.distinct * itemsize(group.like.wire)
            for side, column in enumerate((RECEIVES, SENDS)):
                places = [kind.place[device] for device in group.crossing[:, column].tolist()]
                np.add.at(bytes_[side], places, transfer_bytes)
        return _Followed(kind, tuple(sorted(used)), bytes_)

    def _check_reductions(self) -> None:
        for name, t in self.plan.src.items():
            reduction = self.plan.reductions.get(name)
            if reduction is None and not getattr(t, "partial", ()):
                continue
            if reduction is None or reduction.src != t or reduction.dst.partial:
                raise CheckError(f"the partial source {name} is not reduced before it moves")
            check_plan(reduction)

    # --- values ------------------------------------------------------------------------------

    def _check_values(self, move: Move, origin: Origin, groups: Sequence[Group]) -> None:
        """Every transfer writes what the map says, from elements that have it."""
        target = self.plan.dst[move.target]
        pieces = 0
        for group in groups:
            transfer = group.like
            if not len(group.columns):
                continue
            if transfer.target != move.target or transfer.phase not in range(PHASES):
                raise CheckError(f"{move.target}: a transfer is of {transfer.target}")
            places = group.positions(target, RECEIVES)
            if transfer.sender is None:
                self._check_fill(move, group, places)
                if transfer.reduction:
                    continue
            elif transfer.reduction or not transfer.view.size:
                raise CheckError(f"{move.target}: what is sent has elements, and is no identity")
            for views in self._written(group, target, places):
                for right in self._agree(move, group, origin, views):
                    pieces += 1
                    if not right:
                        self._refuse(move, group, views)
                if pieces > MAX_PIECES:
                    raise CheckError(f"{move.target}: its views have no regular structure")

    def _written(self, group: Group, target: AnyType, places: Numbers) -> Iterator[Views]:
        """The transfers with what they write as elements of the target, what they read in tiles."""
        runs = [run for run in group.like.view.runs if run[0] > 1]
        views = Views(
            np.arange(len(group.columns)),
            (group.columns[:, 2:3], group.columns[:, 3:4]),
            tuple(n for n, _, _ in runs),
            (tuple((t,) for _, t, _ in runs), tuple((s,) for _, _, s in runs)),
        )
        reach = sum((n - 1) * t for n, t, _ in runs)
        sizes = self._sizes(target)[places]
        first = group.columns[:, 2]
        if (first < 0).any() or (first + reach >= sizes).any():
            raise CheckError(
                f"{group.like.target}: a device writes outside its tile, or twice",
                target=group.like.target,
            )
        yield from elements(views, WRITTEN, target, places, self._holding)

    def _agree(self, move: Move, group: Group, origin: Origin, views: Views) -> Iterator[bool]:
        """For each straight part, whether the elements written are the elements read."""
        transfer, dtype = group.like, self.plan.dst[move.target].dtype
        for name, dtypes, part in origin.pull(views, WRITTEN):
            if transfer.sender is None:
                yield name is None and transfer.dtypes[-1] == dtype
            elif transfer.phase == 0:
                if name is None or name != transfer.source or dtypes != transfer.dtypes:
                    self._refuse(move, group, part)
                t = self.plan.source_type(str(name))
                yield from (_same(both) for both in self._read(move, group, t, part))
            else:
                yield from self._agree_with_target(move, group, origin, (name, dtypes), part)

    def _agree_with_target(
        self,
        move: Move,
        group: Group,
        origin: Origin,
        wanted: tuple[str | None, tuple[str, ...]],
        views: Views,
    ) -> Iterator[bool]:
        """Whether what is read of a target that is made, or being made, is what is wanted."""
        transfer = group.like
        of_target = transfer.source == move.target
        other = origin if of_target else self._origins.get(str(transfer.source))
        passed_on = (group.senders != group.receivers).any()
        allowed = of_target if transfer.phase == 1 else not passed_on
        if other is None or transfer.dtypes[0] != other.dtype or not allowed:
            self._refuse(move, group, views)
            return
        t = self.plan.dst[str(transfer.source)]
        for part in self._read(move, group, t, views):
            for name, dtypes, both in other.pull(part, READ):
                yield (name, (*dtypes, *transfer.dtypes[1:])) == wanted and _same(both)

    def _read(self, move: Move, group: Group, t: AnyType, views: Views) -> Iterator[Views]:
        """Views with what they read as elements of the array that it is of."""
        places = group.positions(t, SENDS)
        first = views.starts[READ][:, 0]
        steps = [step[0] for step in views.steps[READ]]
        reach = sum((n - 1) * step for n, step in zip(views.counts, steps, strict=True))
        if (first < 0).any() or (first + reach >= self._sizes(t)[places[views.rows]]).any():
            raise CheckError(
                f"{move.target}: a device does not have what it sends of {group.like.source}",
                target=move.target,
            )
        yield from elements(views, READ, t, places, self._holding)

    def _check_fill(self, move: Move, group: Group, places: Numbers) -> None:
        """Zeros where there is a value, the identity of the reduction where there is none."""
        target = self.plan.dst[move.target]
        transfer = group.like
        if transfer.source is not None or transfer.phase or transfer.dtypes[-1] != target.dtype:
            raise CheckError(f"{move.target}: a fill has no source", target=move.target)
        valued = _holds_value(target)[places]
        kind = target.reduction if isinstance(target, ArrayType) else None
        if transfer.reduction and (valued.any() or transfer.reduction != kind):
            raise CheckError(
                f"{move.target}: the identity of {transfer.reduction} is where a value should be",
                target=move.target,
            )

    def _refuse(self, move: Move, group: Group, views: Views) -> None:
        transfer = group.like
        receiver = int(group.receivers[views.rows[0]])
        raise CheckError(
            f"{move.target}: device {receiver} does not get its value: the map has another element "
            f"or other dtypes than {transfer.source} through {' to '.join(transfer.dtypes)}",
            target=move.target,
            device=receiver,
        )

    # --- coverage ----------------------------------------------------------------------------

    def _check_coverage(self, move: Move, groups: Sequence[Group]) -> None:
        """Every tile is written exactly once, and what is passed on was written before."""
        target = self.plan.dst[move.target]
        by_phase: list[dict[int, list[Strided]]] = [defaultdict(list) for _ in range(PHASES)]
        valued = dict(zip(target.mesh.ids, _holds_value(target).tolist(), strict=True))
        for group in groups:
            for device, view in group.written():
                by_phase[group.like.phase][device].append(view)
                if not valued[device] and not group.like.reduction:
                    raise CheckError(f"{move.target}: device {device} should have no value")
        sizes = self._sizes_by_device(target)
        for device in target.mesh.ids:
            views = [view for phase in by_phase for view in phase.get(device, [])]
            key = sizes[device], tuple(sorted(views))
            if key in self._covered:
                continue
            wrong = _seen(move, fault, views, sizes[device])
            if wrong == "get no value":
                raise CheckError(
                    f"{move.target}: elements of device {device} get no value", target=move.target
                )
            if wrong:
                raise CheckError(
                    f"{move.target}: device {device} writes outside its tile, or twice",
                    target=move.target,
                )
            self._covered.add(key)
        self._check_order(move, groups, by_phase)

    def _check_order(
        self,
        move: Move,
        groups: Sequence[Group],
        by_phase: Sequence[Mapping[int, Sequence[Strided]]],
    ) -> None:
        """What a transfer reads of the target itself has been written in an earlier phase."""
        sizes = self._sizes_by_device(self.plan.dst[move.target])
        read: dict[tuple[int, int], list[Strided]] = defaultdict(list)
        for group in groups:
            phase = group.like.phase
            if phase and group.like.source == move.target:
                for device, view in group.read():
                    read[device, phase].append(view)
        for (device, phase), views in read.items():
            earlier = [v for written in by_phase[:phase] for v in written.get(device, [])]
            if not _seen(move, all_written, views, earlier, sizes[device]):
                raise CheckError(
                    f"{move.target}: device {device} does not have what it sends of "
                    f"{move.target} by then",
                    target=move.target,
                )

    # --- types -------------------------------------------------------------------------------

    def _holding(self, t: ArrayType) -> Held:
        if t not in self._held:
            self._held[t] = Held(t)
        return self._held[t]

    def _sizes_by_device(self, t: AnyType) -> dict[int, int]:
        return dict(zip(t.mesh.ids, self._sizes(t).tolist(), strict=True))

    def _sizes(self, t: AnyType) -> Numbers:
        """Elements of the tile, by position."""
        if not isinstance(t, ArrayType) or not t.uneven:
            return np.full(t.mesh.num_devices, prod(t.tile_shape), np.int64)
        return np.array([prod(t.tile_shape_at(p)) for p in range(t.mesh.num_devices)], np.int64)


def _origin(
    shapes: Mapping[str, Shape], target: Target | None, name: str
) -> tuple[Origin | None, list[str]]:
    """What the map makes of a target, and the sources it takes in the order of their first use.

    A target without a rule is the source of its name.
    """
    taken: dict[str, Origin] = {}

    def get(source: str) -> Origin:
        if source not in taken:
            taken[source] = source_of(source, shapes[source], len(taken))
        return taken[source]

    if target is not None:
        origin = interpret(target.rule.expression, get, Origins(), target.binding)
        return origin, list(taken)
    return (get(name), [name]) if name in shapes else (None, [])


def _same(views: Views) -> bool:
    """Whether the elements written are the elements read, in the same order."""
    return np.array_equal(*views.starts) and views.steps[WRITTEN] == views.steps[READ]


def _holds_value(t: AnyType) -> NDArray[np.bool_]:
    """By position, whether the value of a partial type is there, and not the identity."""
    partial = t.partial if isinstance(t, ArrayType) else ()
    positions = range(t.mesh.num_devices)
    return np.array(
        [not any(t.digit_coordinate(d, p) for d in partial) for p in positions]  # type: ignore[union-attr]
    )


def _seen(move: Move, look: Any, *arguments: object) -> Any:
    try:
        return look(*arguments)
    except TooManyCellsError as error:
        raise CheckError(
            f"{move.target}: its views have no regular structure, and more than {MAX_CELLS} cells",
            target=move.target,
        ) from error


def check(plan: Any) -> dict[str, int]:
    """Check a plan of one array (redistrib.checker) or of a whole model: its figures, now certain.

    Takes a Plan, its JSON text, the data in that text, or a ModelPlan. The figures are bytes of the
    worst device by their names in the plan, with `num_collectives` of one array. Raises CheckError
    with the reason; `step` is the index of the step at fault, `target` the array of a model.

    >>> import redistrib as rd
    >>> check(rd.plan(("f32[8{x}]", rd.Mesh(x=2)), "f32[8]"))["received_bytes"]
    16
    """
    if not isinstance(plan, ModelFigures):
        return check_plan(plan)
    check_model(plan)
    figures = ("received_bytes", "sent_bytes", "lower_bound_bytes", "peak_bytes")
    return {name: getattr(plan, name) for name in figures}
