"""Layout holes: the cheapest target that a pattern allows.

A pattern is the text of a type with holes: `f32[4096{?}, 1024{x}]` leaves dimension 0 open,
`{x,?}` what follows x, and `?` alone every dimension. A hole takes any sequence of the mesh axes
that nothing else of the pattern uses, or of the parts of them that the source or the pattern cuts
them into; or what the source has there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise, permutations, product

import numpy as np

from redistrib.errors import InfeasibleError, LayoutError, RedistribError, TypeSyntaxError
from redistrib.synth.oracle.oracle import Oracle
from redistrib.synth.plan.profile import Profile
from redistrib.synth.planner.problem import Strategy
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, Factor, apart
from redistrib.types.refinement import check_pair

MAX_COMPLETIONS = 100_000

_HOLE = re.compile(r"(\{|,)\s*\?\s*\}")


def complete(
    src: ArrayType,
    pattern: str,
    *,
    strategy: Strategy = "auto",
    memory_limit: int | None = None,
    profile: Profile | str | None = None,
) -> ArrayType:
    """The type that fits a pattern and is cheapest to reach from `src` under the memory limit.

    Of equally cheap ones that with the fewest steps, so the source itself where it fits, then with
    the smallest tile, then the first in the order of their texts. A whole `?` keeps shape, dtype
    and partial axes of `src`.

    >>> from redistrib.types.mesh import Mesh
    >>> mesh = Mesh(x=2, y=4)
    >>> src = ArrayType.parse("f32[64{x}, 64{y}]", mesh)
    >>> str(complete(src, "f32[64{?}, 64]")), str(complete(src, "f32[64{y}, 64{?}]"))
    ('f32[64{x,y}, 64]', 'f32[64{y}, 64{x}]')
    >>> str(complete(src, "?"))
    'f32[64{x}, 64{y}]'

    Raises TypeSyntaxError and LayoutError as for a type, InfeasibleError where no completion fits
    the limit.
    """
    oracle = Oracle(src.mesh, profile, memory_limit)
    found = list(completions(src, pattern))
    seconds = oracle.cost_vector([src] * len(found), found, strategy=strategy)
    least = seconds.min()
    if not np.isfinite(least):
        sizes = [t.tile_bytes for t in found]
        raise InfeasibleError(
            f"no completion of {pattern!r} can be reached from {src} within {memory_limit} bytes "
            f"per device; the smallest tile of one has {min(sizes)}, that of the source "
            f"{src.tile_bytes}",
            memory_limit=memory_limit,
            least_bytes=max(src.tile_bytes, min(sizes)),
        )
    cheapest = [found[n] for n in np.flatnonzero(seconds == least)]

    def order(t: ArrayType) -> tuple[int, int, str]:
        return len(oracle.plan(src, t, strategy=strategy).steps), t.tile_bytes, str(t)

    return min(cheapest, key=order)


def completions(src: ArrayType, pattern: str) -> Iterator[ArrayType]:
    """Every legal type that fits a pattern, each once."""
    if pattern.strip() == "?":
        fixed, holes = (
            ArrayType(src.mesh, src.dtype, src.shape, None, src.partial, src.reduction),
            list(range(len(src.shape))),
        )
    else:
        fixed, holes = _parse(pattern, src)
    check_pair(src, fixed)
    atoms = _atoms(src, fixed)
    seen: set[ArrayType] = set()
    tried = 0
    for dims in _fillings(fixed, src, holes, atoms):
        tried += 1
        if tried > MAX_COMPLETIONS:
            raise RedistribError(
                f"a pattern has at most {MAX_COMPLETIONS} completions to try; {pattern!r} on "
                f"{src.mesh} has more: fix some of its dimensions",
                pattern=pattern,
            )
        try:
            found = ArrayType(src.mesh, src.dtype, src.shape, dims, fixed.partial, fixed.reduction)
        except LayoutError:  # it does not divide, or what the source has there is in use
            continue
        if found not in seen:
            seen.add(found)
            yield found


def _atoms(src: ArrayType, fixed: ArrayType) -> list[DeviceDigit]:
    """The axes that the pattern does not use, cut where the source or the pattern names a part."""
    named = [d for t in (src, fixed) for d in (*(d for d, _ in t.placements), *t.partial)]
    used = [*(d for d, _ in fixed.placements), *fixed.partial]
    found = []
    for axis, size in src.mesh.axes:
        bounds = {1, size, *(b for d in named if d.axis == axis for b in (d.pre, d.end))}
        for a, b in pairwise(sorted(bounds)):
            digit = DeviceDigit(axis, a, b // a)
            if b % a == 0 and all(apart(digit, other) for other in used):
                found.append(digit)
    return found


def _fillings(
    fixed: ArrayType, src: ArrayType, holes: Sequence[int], atoms: Sequence[DeviceDigit]
) -> Iterator[list[tuple[Factor, ...]]]:
    """Factors per dimension: of every hole what the source has there, or some of the atoms."""
    for kept in product((True, False), repeat=len(holes)):
        dims = [list(factors) for factors in fixed.dims]
        of_source = [hole for hole, keep in zip(holes, kept, strict=True) if keep]
        if any(fixed.dims[hole] for hole in of_source):
            continue  # `{x,?}` has a beginning of its own
        for hole in of_source:
            dims[hole] = list(src.dims[hole])
        open_holes = [hole for hole, keep in zip(holes, kept, strict=True) if not keep]
        for places in product((None, *open_holes), repeat=len(atoms)):
            groups = [
                [a for a, place in zip(atoms, places, strict=True) if place == hole]
                for hole in open_holes
            ]
            for orders in product(*(list(permutations(group)) for group in groups)):
                filled = [tuple(factors) for factors in dims]
                for hole, order in zip(open_holes, orders, strict=True):
                    filled[hole] = (*dims[hole], *order)
                yield filled


def _parse(pattern: str, src: ArrayType) -> tuple[ArrayType, list[int]]:
    """The type without its holes, and the dimensions that have one."""
    filled = _HOLE.sub(lambda m: "{ }" if m[1] == "{" else " }", pattern)
    if "?" in filled:
        column = filled.index("?") + 1
        raise TypeSyntaxError(
            f"column {column}: a hole is the last factor of a dimension, as in 64{{?}} or "
            f"64{{x,?}}, or the whole text; got {pattern!r}",
            text=pattern,
            column=column,
        )
    holes = []
    for match in _HOLE.finditer(pattern):
        before = re.sub(r"\{[^}]*\}", "", pattern[: match.start()] + ("}" * (match[1] == ",")))
        holes.append(before.count(","))
    return ArrayType.parse(filled, src.mesh), holes
