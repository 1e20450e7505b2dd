"""From the paper's programs to our collectives, and the derivation as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from redistrib.synth.plan.collectives import (
    AllGather,
    AllToAll,
    Collective,
    CollectivePermute,
    DynamicSlice,
    Move,
)
from redistrib.synth.plan.tables import permute_table
from redistrib.synth.planner.paper import calculus
from redistrib.synth.planner.paper.calculus import (
    Operation,
    PaperType,
    describe,
    interpret,
    prime_system,
)
from redistrib.synth.planner.paper.normal_form import easy, normal_form
from redistrib.synth.planner.paper.search import synthesise
from redistrib.synth.planner.prime_digits import merge_state
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit
from redistrib.types.refinement import check_pair


@dataclass(frozen=True, slots=True)
class Route:
    """One way from source to target: its steps, and the types before, between and after them."""

    name: str
    steps: tuple[Operation, ...]
    types: tuple[PaperType, ...]

    @property
    def local_sizes(self) -> tuple[int, ...]:
        """Elements per device along the path."""
        return tuple(t.tile_size for t in self.types)


def derive(src: ArrayType, dst: ArrayType) -> tuple[Route, Route, Route]:
    """The easy route, its normal form, and the synthesised one.

    >>> from redistrib.types.mesh import Mesh
    >>> mesh = Mesh(x=2, y=2, z=3, w=2)
    >>> ends = ("f32[12{y,x}, 12{w,z}]", "f32[12{w,z}, 12{y,x}]")
    >>> for route in derive(*(ArrayType.parse(text, mesh) for text in ends)):
    ...     print(f"{route.name:22}", *route.local_sizes)
    gather all, slice all  6 12 24 72 144 72 24 12 6
    normal form            6 6 6 6 6 6 6 6 6
    synthesised            6 6 6 6

    Raises LayoutError for types that the paper cannot express.
    """
    start, end = _views(src, dst)
    naive = easy(start, end)
    return (
        _route("gather all, slice all", start, naive),
        _route("normal form", start, normal_form(start, naive)),
        _route("synthesised", start, synthesise(start, end)),
    )


def paper_steps(src: ArrayType, dst: ArrayType) -> list[Collective]:
    """The synthesised route as collectives of ours.

    Raises LayoutError for types that the paper cannot express.
    """
    start, end = _views(src, dst)
    return lower(start, synthesise(start, end), src.dtype)


def derivation_lines(src: ArrayType, dst: ArrayType) -> list[str]:
    """The derivation as text: every route, with its local sizes, then its steps and types."""
    lines = ["derivation on prime axes: tile{axes}global, axes minor first; elements per device"]
    for route in derive(src, dst):
        sizes = list(map(str, route.local_sizes))
        texts = [describe(t, step) for t, step in zip(route.types, route.steps, strict=False)]
        width, digits = max(map(len, ("source", *texts))), max(map(len, sizes))
        lines += ["", f"{route.name}: {' '.join(sizes)}"]
        lines += [
            f"  {text:{width}}  {size:>{digits}}  {t}"
            for text, size, t in zip(("source", *texts), sizes, route.types, strict=True)
        ]
    return lines


def lower(start: PaperType, program: Iterable[Operation], dtype: str) -> list[Collective]:
    """A program as collectives of ours.

    One after the other of one kind, in the same dimensions, is one collective. Permutes that add
    up to nothing are left out.

    Raises LayoutError if the program does not apply to `start`.
    """
    program = tuple(program)
    types = interpret(start, program)
    steps: list[Collective] = []
    for (kind, *_), group in groupby(range(len(program)), lambda number: _kind(program[number])):
        numbers = list(group)
        before, after = types[numbers[0]], types[numbers[-1] + 1]
        old, new = before.owners, after.owners
        match kind:
            case "slice":
                added = {axis: index for axis, index in new.items() if axis not in old}
                steps.append(DynamicSlice(tuple(sorted(merge_state(added)))))
            case "gather":
                freed = {axis: index for axis, index in old.items() if axis not in new}
                steps.append(AllGather(tuple(sorted(merge_state(freed)))))
            case "move":
                moves = (Move(d, i, new[d]) for d, i in old.items() if new[d] != i)
                steps.append(AllToAll(tuple(moves)))
            case _ if before != after:
                steps.append(_permute(before, after, dtype))
    return steps


def _views(src: ArrayType, dst: ArrayType) -> tuple[PaperType, PaperType]:
    check_pair(src, dst)
    system = prime_system(src, dst)
    return PaperType.of(src, system), PaperType.of(dst, system)


def _route(name: str, start: PaperType, steps: tuple[Operation, ...]) -> Route:
    return Route(name, steps, tuple(interpret(start, steps)))


def _kind(step: Operation) -> tuple[str, int, int]:
    """What a step has in common with those that can be one collective with it."""
    match step:
        case calculus.Slice():
            return "slice", 0, 0
        case calculus.Gather(dim, _):
            return "gather", dim, dim
        case calculus.Move(source, target, _):
            return "move", source, target
        case (
            calculus.SwapTops() | calculus.ReplaceTop() | calculus.SwapWithin() | calculus.Permute()
        ):
            return "permute", 0, 0


def _permute(before: PaperType, after: PaperType, dtype: str) -> CollectivePermute:
    """The permute between two types with tiles of one shape.

    Where axes follow each other with the same sizes it routes axes; elsewhere it is a table.
    """
    routes = dict(_routes(before, after))
    if all(old.size == new.size for old, new in routes.items()):
        taken = set(routes.values())
        # An axis that is no longer owned takes the role of one that was free: of the chain that
        # it ends.
        for end in [axis for axis in routes.values() if axis not in routes]:
            start = next(old for old in _chain(end, routes) if old not in taken)
            routes[end] = start
        return CollectivePermute(tuple((a, b) for a, b in routes.items() if a != b))
    return CollectivePermute((), permute_table(before.array_type(dtype), after.array_type(dtype)))


def _routes(before: PaperType, after: PaperType) -> Iterator[tuple[DeviceDigit, DeviceDigit]]:
    """The axes of two types that own the same place, counted from the major end."""
    for old, new in zip(before.dims, after.dims, strict=True):
        yield from zip(reversed(old.axes), reversed(new.axes), strict=False)


def _chain(end: DeviceDigit, routes: dict[DeviceDigit, DeviceDigit]) -> Iterator[DeviceDigit]:
    """The axes from which the tile of an axis comes, one permute after the other."""
    sources = {new: old for old, new in routes.items()}
    while end in sources:
        end = sources[end]
        yield end
