"""Patterns of `rearrange`, written as in einops.

    (h d) m -> h m d        dimension 0 is split into h and d, then the dimensions are reordered
    a b -> (b a)            transposed and merged
    a b -> a r b            repeated r times; r needs a size
    1 b -> b                a dimension of size 1 is dropped

A fitted pattern is a `Regrouping`: reshape to digits, transpose, repeat, reshape.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from redistrib.errors import WeightMapError

_TOKEN = re.compile(r"\s*(?:(->)|([A-Za-z_]\w*)|(1(?!\w))|([()]))", re.ASCII)

Group = tuple[str, ...]
"""The names that a dimension is made of, major to minor; a dimension of size 1 has none."""


@dataclass(frozen=True, slots=True)
class Regrouping:
    """A pattern on a shape: the array as `digits`, these in another `order`, with `repeats`.

    `repeats` are (place, size) pairs: new dimensions are put in at these places, one after the
    other. The result has the shape `shape`, the groups of digits merged.
    """

    digits: tuple[int, ...]
    order: tuple[int, ...]
    repeats: tuple[tuple[int, int], ...]
    shape: tuple[int, ...]
    split: tuple[int, ...]  # per digit, the dimension of the array that it comes from
    merged: tuple[int, ...]  # per digit of the result, the dimension that it becomes part of


@dataclass(frozen=True, slots=True)
class Pattern:
    """Dimensions before and after, as groups of names.

    >>> pattern = Pattern.parse("(h d) m -> h m d")
    >>> pattern.before, pattern.after
    ((('h', 'd'), ('m',)), (('h',), ('m',), ('d',)))
    >>> pattern.fit((12, 5), {"d": 4}).shape
    (3, 5, 4)
    """

    before: tuple[Group, ...]
    after: tuple[Group, ...]

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """The pattern in a text. Raises WeightMapError where it is none."""
        sides: list[list[Group]] = [[]]
        group: list[str] | None = None
        end = 0
        while end < len(text.rstrip()):
            match = _TOKEN.match(text, end)
            if match is None:
                raise _bad(text, f"unexpected {text[end:].strip()[0]!r}")
            arrow, name, _one, bracket = match.groups()
            end = match.end()
            if arrow:
                if group is not None or len(sides) == 2:
                    raise _bad(text, "unexpected '->'")
                sides.append([])
            elif bracket == "(":
                if group is not None:
                    raise _bad(text, "brackets are not nested")
                group = []
            elif bracket == ")":
                if group is None:
                    raise _bad(text, "')' without '('")
                sides[-1].append(tuple(group))
                group = None
            elif group is not None:
                group += [name] if name else []
            else:
                sides[-1].append((name,) if name else ())
        if group is not None or len(sides) != 2:
            raise _bad(text, "'->' is missing" if len(sides) != 2 else "')' is missing")
        before, after = (tuple(side) for side in sides)
        for side in (before, after):
            names = [name for group in side for name in group]
            if len(set(names)) < len(names):
                raise _bad(text, "a name stands once on each side")
        lost = {name for group in before for name in group} - {n for g in after for n in g}
        if lost:
            raise _bad(text, f"no dimension is lost; {sorted(lost)} stand on the left alone")
        return cls(before, after)

    def fit(self, shape: tuple[int, ...], sizes: Mapping[str, int]) -> Regrouping:
        """The pattern on an array of this shape, with the sizes of some names given.

        Raises WeightMapError where they do not fit, or do not say the size of a name.
        """
        self._check(shape, sizes)
        known = dict(sizes)
        for dim, (group, n) in enumerate(zip(self.before, shape, strict=True)):
            _solve(self, shape, dim, group, n, known)
        before = [name for group in self.before for name in group]
        after = [name for group in self.after for name in group]
        new = [name for name in after if name not in before]
        if missing := [name for name in new if name not in known]:
            raise WeightMapError(
                f"a name that stands on the right alone repeats the array and needs a size, as in "
                f"{missing[0]}=2; the pattern is '{self}'",
                name=missing[0],
            )
        return Regrouping(
            tuple(known[name] for name in before),
            tuple(before.index(name) for name in after if name in before),
            tuple((place, known[name]) for place, name in enumerate(after) if name in new),
            tuple(prod(known[name] for name in group) for group in self.after),
            tuple(dim for dim, group in enumerate(self.before) for _ in group),
            tuple(dim for dim, group in enumerate(self.after) for _ in group),
        )

    def _check(self, shape: tuple[int, ...], sizes: Mapping[str, int]) -> None:
        """Raise WeightMapError for another rank, sizes of unknown names, or negative sizes."""
        if len(shape) != len(self.before):
            raise WeightMapError(
                f"the pattern '{self}' is for arrays of rank {len(self.before)}; got the shape "
                f"{list(shape)}",
                shape=shape,
            )
        names = {name for group in (*self.before, *self.after) for name in group}
        for name, size in sizes.items():
            if name not in names:
                raise WeightMapError(
                    f"sizes are of names in the pattern '{self}'; got {name}", name=name
                )
            if size < 0:
                raise WeightMapError(f"a size is at least 0; got {name}={size}")

    def __str__(self) -> str:
        return " -> ".join(" ".join(map(_format, side)) for side in (self.before, self.after))


def _solve(
    pattern: Pattern,
    shape: tuple[int, ...],
    dim: int,
    group: Group,
    size: int,
    known: dict[str, int],
) -> None:
    """Find the one unknown size of a group, and check that the sizes make up the dimension."""
    unknown = [name for name in group if name not in known]
    if len(unknown) > 1:
        raise WeightMapError(
            f"all sizes but one of a group are given; the pattern '{pattern}' on {list(shape)} "
            f"leaves {' and '.join(unknown)} open",
            names=unknown,
        )
    product = prod(known[name] for name in group if name in known)
    if unknown and product and size % product == 0:
        known[unknown[0]] = size // product
    elif unknown or product != size:
        raise WeightMapError(
            f"the sizes of {_format(group)} make up dimension {dim}, of size {size}; got "
            + (", ".join(f"{n}={known[n]}" for n in group if n in known) or "1"),
            shape=shape,
        )


def _format(group: Group) -> str:
    if len(group) == 1:
        return group[0]
    return f"({' '.join(group)})" if group else "1"


def _bad(text: str, why: str) -> WeightMapError:
    return WeightMapError(
        f"a pattern is like '(h d) m -> h m d'; got {text!r}: {why}", pattern=text
    )
