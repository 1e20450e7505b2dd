"""A plan as collectives of Shardy's dialect, `sdy.*`, on global tensors.

Shardy's collectives take axes off the minor end of a dimension's list and put them there, and a
list has no local factor inside. A type that needs one between two others, `f32[8{_2,x}]`, is that
of a reshaped tensor, `2x4` with the second dimension over x: every device holds the same elements
under both. So each step is written on a *view*, the dimensions cut where the step needs it, with
stablehlo.reshape from one view to the next; most plans need none. An all_to_all of Shardy also uses
a dimension once at most, which a cut before and after every moved digit always grants.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import assert_never

from redistrib.errors import LayoutError
from redistrib.interop.programs.mlir import tensor_type
from redistrib.interop.shardy import format_refs, format_sdy, format_sdy_mesh
from redistrib.interop.words import check_reduction
from redistrib.synth.plan.collectives import (
    AllGather,
    AllReduce,
    AllToAll,
    Collective,
    CollectivePermute,
    DynamicSlice,
    Exchange,
    Move,
    ReduceScatter,
    ReplicatedToPartial,
    ShardedToPartial,
)
from redistrib.synth.plan.data import Plan, check_even
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import (
    DeviceDigit,
    IndexDigit,
    Local,
    Placement,
    coalesce,
    cut,
    inside,
    split_at,
)
from redistrib.types.mesh import Mesh

# Per dimension, the positions before each cut inside it, ascending.
_Cuts = tuple[tuple[int, ...], ...]


def plan_to_sdy(plan: Plan) -> str:
    """A module with a function @redistribute from the source's tensor to the target's.

    A target on another mesh of the same devices is shown as what it is on the source's mesh.

    Raises LayoutError for a source or target that Shardy has no word for, for reductions other than
    sums, and for an exchange.
    """
    check_even(plan, "a program of Shardy")
    src, dst = plan.src, plan.types[-1]
    for t in plan.types:  # its collectives sum; released verifiers read no other reduction
        check_reduction(t, "Shardy")
    tensor = tensor_type(src.shape, src.dtype)
    argument, result = (f"{tensor} {{sdy.sharding = {format_sdy(t)}}}" for t in (src, dst))
    body = _Body(src)
    for step, (before, after) in zip(plan.steps, pairwise(plan.types), strict=True):
        body.add(step, before, after)
    body.reshape(dst, _plain(dst))
    lines = [
        f"sdy.mesh @mesh = {format_sdy_mesh(src.mesh)}",
        f"func.func public @redistribute(%0: {argument}) -> ({result}) {{",
        *(f"  {line}" for line in body.lines),
        f"  return %{body.last} : {tensor}",
        "}",
    ]
    return "\n".join(["module {", *(f"  {line}" for line in lines), "}"])


class _Body:
    """The operations of the function, and the view that its last value is in."""

    def __init__(self, src: ArrayType) -> None:
        self.cuts = _plain(src)
        self.last = 0
        self.lines: list[str] = []

    def reshape(self, t: ArrayType, cuts: _Cuts) -> None:
        """Show the last value, of type `t`, in another view."""
        if cuts == self.cuts:
            return
        old, new = (tensor_type(_view_shape(t, c), t.dtype) for c in (self.cuts, cuts))
        self.cuts = cuts
        sharding = f"#sdy.sharding_per_value<[{_sharding(t, cuts)}]>"
        value = f"stablehlo.reshape %{self.last} {{sdy.sharding = {sharding}}}"
        self._append(f"{value} : ({old}) -> {new}")

    def add(self, step: Collective, before: ArrayType, after: ArrayType) -> None:
        views = (self.cuts, _plain(before), _least(before, after), _fine(step, before, after))
        cuts = next(cuts for cuts in views if _serves(step, before, after, cuts))
        self.reshape(before, cuts)
        tensor = tensor_type(_view_shape(after, cuts), after.dtype)
        name, axes = _operation(step, before, cuts)
        axes = f"{axes} " if axes else ""
        self._append(
            f"sdy.{name} {axes}%{self.last} out_sharding={_sharding(after, cuts)} : {tensor}"
        )

    def _append(self, operation: str) -> None:
        self.last += 1
        self.lines.append(f"%{self.last} = {operation}")


def _operation(step: Collective, t: ArrayType, cuts: _Cuts) -> tuple[str, str]:
    """The name of the operation in the dialect, and the axes that stand before its operand."""
    match step:
        case DynamicSlice(placements):
            return "all_slice", _axis_lists(placements, t, cuts)
        case AllGather(placements):
            return "all_gather", _axis_lists(placements, t, cuts)
        case ReduceScatter(placements):
            return "reduce_scatter", _axis_lists(placements, t, cuts)
        case ShardedToPartial(placements):
            # A sum of no elements is none: there, this only makes the tiles whole.
            name = "sharded_to_unreduced" if t.size else "all_gather"
            return name, _axis_lists(placements, t, cuts)
        case AllToAll(moves):
            moved = _parameters(moves, t, cuts) or {}
            listed = (
                f"{_refs(digits, t.mesh)}: {source}->{target}"
                for (source, target), digits in sorted(moved.items())
            )
            return "all_to_all", f"[{', '.join(listed)}]"
        case CollectivePermute():
            return "collective_permute", ""
        case AllReduce(axes):
            return "all_reduce", _refs(_in_mesh_order(axes, t.mesh), t.mesh)
        case ReplicatedToPartial(axes):
            return "replicated_to_unreduced", _refs(_in_mesh_order(axes, t.mesh), t.mesh)
        case Exchange():
            raise LayoutError(
                "Shardy has no word for an exchange, point to point; a plan with the strategy "
                "'collectives' has none",
                step=step,
            )
        case _:
            assert_never(step)


def _plain(t: ArrayType) -> _Cuts:
    return ((),) * len(t.shape)


def _least(*types: ArrayType) -> _Cuts:
    """A cut after every local factor that an axis follows."""
    cuts: list[set[int]] = [set() for _ in types[0].shape]
    for t in types:
        for dim, factors in enumerate(t.dims):
            end = 1
            for factor in factors:
                end *= factor.size
                if isinstance(factor, Local):
                    cuts[dim].add(end)
    return tuple(tuple(sorted(ends)) for ends in cuts)


def _fine(step: Collective, before: ArrayType, after: ArrayType) -> _Cuts:
    """The least cuts, and one before and after every digit that an all_to_all moves."""
    cuts = [set(ends) for ends in _least(before, after)]
    if isinstance(step, AllToAll):
        for move in step.moves:
            for index in (move.source, move.target):
                cuts[index.dim] |= {index.pre, index.end} - {1, before.shape[index.dim]}
    return tuple(tuple(sorted(ends)) for ends in cuts)


def _serves(step: Collective, before: ArrayType, after: ArrayType, cuts: _Cuts) -> bool:
    """Whether Shardy has words for a step in this view; an exchange has none in any."""
    if isinstance(step, Exchange):
        return True
    if any(_lists(t, cuts) is None for t in (before, after)):
        return False
    return not isinstance(step, AllToAll) or _parameters(step.moves, before, cuts) is not None


def _view_shape(t: ArrayType, cuts: _Cuts) -> list[int]:
    return [run.size for run in _runs(t, cuts)]


def _runs(t: ArrayType, cuts: _Cuts) -> list[IndexDigit]:
    """The dimensions of a view, as parts of those of the array."""
    return [run for dim, n in enumerate(t.shape) for run in cut(IndexDigit(dim, 1, n), cuts[dim])]


def _pieces(placements: Iterable[Placement], cuts: _Cuts) -> list[Placement]:
    """Placements in order of what they own, split at those cuts that split them."""
    pieces: list[Placement] = []
    for device, index in placements:
        splits = [(index.dim, cut) for cut in cuts[index.dim] if cut % index.pre == 0]
        pieces += split_at([(device, index)], [cut for cut in splits if index.end % cut[1] == 0])
    return sorted(pieces, key=lambda placement: placement[1])


def _lists(t: ArrayType, cuts: _Cuts) -> list[list[DeviceDigit]] | None:
    """The axes of each dimension of a view.

    None where a local factor stands before one, or a cut inside an axis does not split it.
    """
    pieces = _pieces(t.placements, cuts)
    lists = []
    for run in _runs(t, cuts):
        owned = [(device, index) for device, index in pieces if inside(index, run)]
        ends = [run.pre, *(index.end for _, index in owned)]
        if ends[:-1] != [index.pre for _, index in owned]:
            return None
        lists.append([device for device, _ in owned])
    return lists if sum(map(len, lists)) == len(pieces) else None


def _sharding(t: ArrayType, cuts: _Cuts) -> str:
    lists = _lists(t, cuts)
    assert lists is not None  # the view was chosen so
    partial = f", unreduced={_refs(t.partial, t.mesh)}" if t.partial else ""
    return f"<@mesh, [{', '.join(_refs(digits, t.mesh) for digits in lists)}]{partial}>"


def _axis_lists(placements: Iterable[Placement], t: ArrayType, cuts: _Cuts) -> str:
    pieces = _pieces(placements, cuts)
    lists = ([d for d, index in pieces if inside(index, run)] for run in _runs(t, cuts))
    return f"[{', '.join(_refs(digits, t.mesh) for digits in lists)}]"


def _parameters(
    moves: Sequence[Move], t: ArrayType, cuts: _Cuts
) -> dict[tuple[int, int], list[DeviceDigit]] | None:
    """Per pair of dimensions of a view, the axes that move; None where a dimension comes twice."""
    runs = _runs(t, cuts)
    groups: dict[tuple[int, int], list[Move]] = {}
    for move in sorted(moves, key=lambda move: move.target):
        ends = [
            next((dim for dim, run in enumerate(runs) if inside(index, run)), None)
            for index in (move.source, move.target)
        ]
        if ends[0] is None or ends[1] is None:
            return None
        groups.setdefault((ends[0], ends[1]), []).append(move)
    used = [dim for pair in groups for dim in pair]
    ordered = all(group == sorted(group, key=lambda move: move.source) for group in groups.values())
    if len(set(used)) < len(used) or not ordered:
        return None
    return {pair: [move.device for move in group] for pair, group in groups.items()}


def _in_mesh_order(axes: Iterable[DeviceDigit], mesh: Mesh) -> list[DeviceDigit]:
    order = list(mesh.sizes)
    return sorted(axes, key=lambda digit: (order.index(digit.axis), digit.pre))


def _refs(digits: Iterable[DeviceDigit], mesh: Mesh) -> str:
    merged = coalesce(digits)
    return format_refs((d for d in merged if isinstance(d, DeviceDigit)), mesh)
