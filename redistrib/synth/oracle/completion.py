"""Layout holes: the cheapest target that a pattern allows.

A pattern is the text of a type with holes: `f32[4096{?}, 1024{x}]` leaves dimension 0 open,
`{x,?}` what follows x, `sum{?}` the partial set, and `?` alone every dimension. A hole takes any
sequence of the mesh axes that nothing else of the pattern uses, or of the parts of them that the
source or the pattern cuts them into; or what the source has there.

>>> from redistrib.types.mesh import Mesh
>>> mesh = Mesh(x=2, y=4)
>>> src = ArrayType.parse("f32[64{x}, 64] sum{y}", mesh)
>>> print(*completions(src, "f32[64{x}, 64] sum{?}"), sep="; ")
f32[64{x}, 64] sum{y}; f32[64{x}, 64]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations, product

import numpy as np

from redistrib.errors import InfeasibleError, LayoutError, RedistribError
from redistrib.synth.oracle.oracle import Oracle
from redistrib.synth.plan.profile import Profile
from redistrib.synth.planner.problem import Strategy
from redistrib.text import Scanner
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, Factor, apart
from redistrib.types.mesh import whole_axes
from redistrib.types.named_sharding import TypeLike, as_type
from redistrib.types.notation import read_type
from redistrib.types.refinement import check_pair

MAX_COMPLETIONS = 100_000

_PARTIAL = -1
"""The place of a hole in the partial set, where dimensions have their numbers."""


def complete(
    src: TypeLike,
    pattern: str,
    *,
    strategy: Strategy = "auto",
    memory_limit: int | str | None = None,
    profile: Profile | str | None = None,
) -> ArrayType:
    """The type that fits a pattern and is cheapest to reach from `src` under the memory limit.

    Of equally cheap ones that with the fewest steps, so the source itself where it fits, then with
    the smallest tile, then the first in the order of their texts. A whole `?` keeps shape, dtype
    and partial axes of `src`. `strategy`, `memory_limit` (bytes per device, or "1GiB") and
    `profile` are those of `redistrib.plan`.

    >>> from redistrib.types.mesh import Mesh
    >>> mesh = Mesh(x=2, y=4)
    >>> src = ArrayType.parse("f32[64{x}, 64{y}]", mesh)
    >>> str(complete(src, "f32[64{?}, 64]")), str(complete(src, "f32[64{y}, 64{?}]"))
    ('f32[64{x,y}, 64]', 'f32[64{y}, 64{x}]')
    >>> str(complete(src, "?"))
    'f32[64{x}, 64{y}]'

    Raises TypeSyntaxError and LayoutError as for a type, InfeasibleError where no completion fits
    the limit, RedistribError for more than MAX_COMPLETIONS completions.
    """
    src = as_type(src)
    oracle = Oracle(src.mesh, profile, memory_limit)
    candidates = list(completions(src, pattern))
    seconds = oracle.cost_vector([src] * len(candidates), candidates, strategy=strategy)
    least = seconds.min()
    if not np.isfinite(least):
        sizes = [t.tile_bytes for t in candidates]
        raise InfeasibleError(
            f"no completion of {pattern!r} can be reached from {src} within {memory_limit} bytes "
            f"per device; the smallest tile of one has {min(sizes)}, that of the source "
            f"{src.tile_bytes}",
            memory_limit=oracle.memory_limit,
            least_bytes=max(src.tile_bytes, min(sizes)),
        )
    cheapest = [candidates[n] for n in np.flatnonzero(seconds == least)]

    def order(t: ArrayType) -> tuple[int, int, str]:
        return len(oracle.plan(src, t, strategy=strategy).steps), t.tile_bytes, str(t)

    return min(cheapest, key=order)


def completions(src: ArrayType, pattern: str) -> Iterator[ArrayType]:
    """Every legal type that fits a pattern, each once."""
    if src.uneven:
        raise _not_even(str(src))
    holes = _read(pattern, src)
    seen: set[ArrayType] = set()
    for tried, (dims, partial) in enumerate(_fillings(holes, src)):
        if tried == MAX_COMPLETIONS:
            raise RedistribError(
                f"a pattern has at most {MAX_COMPLETIONS} completions to try; {pattern!r} on "
                f"{src.mesh} has more: fix some of its dimensions",
                pattern=pattern,
            )
        try:
            filled = ArrayType(src.mesh, src.dtype, src.shape, dims, partial, holes.reduction)
        except LayoutError:  # it does not divide, or what the source has there is in use
            continue
        if filled not in seen:
            seen.add(filled)
            yield filled


def _not_even(text: str) -> LayoutError:
    return LayoutError(
        f"holes are filled in even types, from an even source; got {text}: pad it to a size that "
        f"its axes divide, or compare whole types with cost_vector",
        given=text,
    )


@dataclass(frozen=True, slots=True)
class _Holes:
    """A pattern: what it states, where it is open, and the parts of axes that can go there.

    `open_at` are dimensions, and _PARTIAL for the partial set.
    """

    dims: tuple[tuple[str | Factor, ...], ...]
    partial: tuple[str | Factor, ...]
    reduction: str
    open_at: tuple[int, ...]
    atoms: tuple[DeviceDigit, ...]

    def stated(self, place: int) -> tuple[str | Factor, ...]:
        """The factors that stand before the hole of a place."""
        return self.partial if place == _PARTIAL else self.dims[place]


def _read(pattern: str, src: ArrayType) -> _Holes:
    """The pattern, whose shape and dtype are those of the source."""
    scanner = Scanner(pattern)
    if scanner.accept("?") and scanner.at_end():
        rank = len(src.shape)
        atoms = _atoms(src, src.replace(dims=[()] * rank))
        return _Holes(((),) * rank, src.partial, src.reduction or "sum", (*range(rank),), atoms)
    text = read_type(pattern, holes=True)
    if text.uneven:
        raise _not_even(pattern)
    fixed = ArrayType(src.mesh, text.dtype, text.shape, text.dims, text.partial, text.reduction)
    check_pair(src, fixed)
    open_at = (*text.holes, *((_PARTIAL,) if text.open_partial else ()))
    return _Holes(text.dims, text.partial, text.reduction, open_at, _atoms(src, fixed))


def _atoms(src: ArrayType, fixed: ArrayType) -> tuple[DeviceDigit, ...]:
    """The axes that the pattern does not use, cut where the source or the pattern names a part."""
    named = [d for t in (src, fixed) for d in (*(d for d, _ in t.placements), *t.partial)]
    used = [*(d for d, _ in fixed.placements), *fixed.partial]
    atoms = []
    for axis in whole_axes(src.mesh):
        bounds = {1, axis.size, *(b for d in named if d.axis == axis.axis for b in (d.pre, d.end))}
        for a, b in pairwise(sorted(bounds)):
            digit = DeviceDigit(axis.axis, a, b // a)
            # The source may cut an axis otherwise than the pattern: x=6 by 2 and by 3.
            if b % a == 0 and all(apart(digit, other) for other in used):
                atoms.append(digit)
    return tuple(atoms)


def _fillings(
    holes: _Holes, src: ArrayType
) -> Iterator[tuple[list[tuple[str | Factor, ...]], tuple[str | Factor, ...]]]:
    """Factors per dimension and partial set: in every hole what the source has, or some atoms."""
    for kept in product((True, False), repeat=len(holes.open_at)):
        of_source = [place for place, keep in zip(holes.open_at, kept, strict=True) if keep]
        if any(holes.stated(place) for place in of_source):
            continue  # `{x,?}` has a beginning of its own
        if _PARTIAL in of_source and src.reduction != holes.reduction:
            continue
        empty = [place for place in holes.open_at if place not in of_source]
        before = {place: tuple(_of_source(src, place)) for place in of_source}
        for places in product((None, *empty), repeat=len(holes.atoms)):
            groups = [
                [atom for atom, chosen in zip(holes.atoms, places, strict=True) if chosen == place]
                for place in empty
            ]
            orders = [
                [group] if place == _PARTIAL else permutations(group)  # a set has no order
                for place, group in zip(empty, groups, strict=True)
            ]
            for order in product(*orders):
                filled = before | dict(zip(empty, order, strict=True))
                dims = [(*f, *filled.get(dim, ())) for dim, f in enumerate(holes.dims)]
                yield dims, (*holes.partial, *filled.get(_PARTIAL, ()))


def _of_source(src: ArrayType, place: int) -> Sequence[Factor]:
    return src.partial if place == _PARTIAL else src.dims[place]
