"""The canonical form of an uneven dimension: the first rule that gives its blocks, and its meaning.

The rules are tried in the order even, ceil, balanced, nested, sizes. On x=2,y=2:

    8{x,y}:balanced       even: the rule goes, 8{x,y}
    7{x,y}:balanced       2, 2, 2, 1, which is 7{x,y}:ceil
    10{x,y}:nested        3, 2, 3, 2 stays; its factors do not merge, as each is a cut
    3{x,y}:sizes(2,0,1,0) y is never 1, so 3{y,x,_2}:ceil says the same

So a rule falls back on `ceil`, with digits in any order, wherever these can say it. Under `ceil`
(proof in docs/uneven.md) the form is unique once digits that are 0 for all indices below n, *idle*
ones, come first, in the order of the mesh:

- an idle local factor goes, and one that is the first to be not idle shrinks to its values;
- an idle part of an axis that goes on in the first digit that is not idle is merged with it;
- the factor at the end is the block, and goes where it is as small as it can be.

Of two forms of blocks that `ceil` cannot say, with empty ones among them, both may stay; `meaning`
tells that they are equal.

>>> mesh = Mesh(x=2, y=2)
>>> x, y = DeviceDigit("x", 1, 2), DeviceDigit("y", 1, 2)
>>> form = canonical_uneven(3, [x, y], Sizes((2, 0, 1, 0)), mesh)
>>> str(form.rule), format_factors(form.factors, mesh)
('ceil', 'y,x,_2')
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from redistrib.errors import LayoutError
from redistrib.types.canonical import check_uses
from redistrib.types.digits import (
    DeviceDigit,
    Factor,
    Local,
    Positions,
    apart,
    coalesce,
    complement,
    divisors,
    inside,
    with_digits,
)
from redistrib.types.mesh import Mesh, whole_axes
from redistrib.types.notation import format_factors
from redistrib.types.uneven import (
    BALANCED,
    CEIL,
    NESTED,
    BlockRule,
    Ceil,
    Rule,
    Sizes,
    block_ends,
    padded_size,
    sizes_of,
)


@dataclass(frozen=True, slots=True)
class Form:
    """An uneven dimension in canonical form; `rule` is None where it is even after all.

    Dimensions of one size on one mesh have equal `meaning` if and only if all devices hold the
    same of them.
    """

    factors: tuple[Factor, ...]
    rule: Rule | None
    meaning: object


def canonical_uneven(n: int, factors: Sequence[Factor], rule: Rule, mesh: Mesh) -> Form:
    """The canonical form of a dimension of size n. Raises LayoutError for what no rule allows."""
    if not n or not factors:
        return Form((), None, ())
    check_uses([factors], (), mesh)
    if isinstance(rule, Ceil):
        return _under_ceil(n, factors, mesh)
    digits = [f for f in factors if isinstance(f, DeviceDigit) and f.size > 1]
    if any(isinstance(factor, Local) and factor.size > 1 for factor in factors):
        raise LayoutError(
            f"under the rule {rule} each device has one block, so there are no local factors; got "
            f"{n}{{{format_factors(factors, mesh)}}}; block-cyclic is under ceil",
            rule=str(rule),
        )
    ends = block_ends(n, tuple(f.size for f in factors), rule)
    owners = _Owners(digits, mesh, np.array(ends))
    under_ceil = owners.as_ceil()
    if under_ceil is not None:
        return _under_ceil(n, under_ceil, mesh)
    meaning = owners.meaning()
    # Each factor of `nested` is a cut of its own; others may be one digit.
    merged = tuple(f for f in coalesce(digits) if isinstance(f, DeviceDigit))
    options: list[tuple[tuple[DeviceDigit, ...], BlockRule]] = [
        (merged, BALANCED),
        (merged, NESTED),
        (tuple(digits), NESTED),
    ]
    for cuts, option in options:
        if block_ends(n, tuple(f.size for f in cuts), option) == ends:
            return Form(cuts, option, meaning)
    return Form(merged, Sizes(tuple(sizes_of(ends))), meaning)


def _under_ceil(n: int, factors: Sequence[Factor], mesh: Mesh) -> Form:
    padded = padded_size(n, factors)
    if padded < n:
        raise LayoutError(
            f"under the rule ceil the product of all factors is the padded size, not below the "
            f"size; got {n}{{{format_factors(factors, mesh)}}} with product {padded}",
            size=n,
            product=padded,
        )
    kept = [factor for factor in factors if factor.size > 1]
    minor = padded // prod([factor.size for factor in kept])
    *above, last = coalesce([*kept, Local(minor)])
    stride = block = min(n, last.size)
    idle: list[DeviceDigit] = []
    busy: list[Factor] = []  # minor to major
    for factor in reversed(above):
        if stride < n:
            top = isinstance(factor, Local) and stride * factor.size >= n
            busy.append(Local(-(-n // stride)) if top else factor)
            stride *= busy[-1].size
        elif isinstance(factor, DeviceDigit):
            idle.append(factor)
    while busy and (more := [d for d in idle if _goes_on(d, busy[-1])]):
        idle.remove(more[0])
        busy[-1] = DeviceDigit(more[0].axis, more[0].pre, more[0].size * busy[-1].size)
    order = {name: index for index, (name, _) in enumerate(mesh.axes)}
    front = sorted(idle, key=lambda d: (order[d.axis], d.pre))
    form: list[Factor] = [*coalesce(front), *reversed(busy)]
    least = -(-n // prod([factor.size for factor in form]))
    if block != least:
        form.append(Local(block))
    if padded_size(n, form) == n:
        if form and isinstance(form[-1], Local):
            form.pop()
        return Form(tuple(form), None, tuple(form))
    return Form(tuple(form), CEIL, (tuple(form), block))


def _goes_on(major: DeviceDigit, minor: Factor) -> bool:
    """Whether two parts of an axis are one, the one after the other."""
    return isinstance(minor, DeviceDigit) and (major.axis, major.end) == (minor.axis, minor.pre)


class _Owners:
    """Who has the blocks, those that are not empty, that digits, major to minor, number.

    `positions` are those of the owners whose other digits are 0, `runs` where their blocks begin
    and end, `[block, (start, stop)]`, in order.
    """

    def __init__(self, digits: Sequence[DeviceDigit], mesh: Mesh, ends: Positions) -> None:
        self.digits, self.mesh = digits, mesh
        held = np.flatnonzero(np.diff(ends))
        self.positions = self._positions(digits, held)
        self.runs = np.stack([ends[held], ends[held + 1]], axis=1)

    def _positions(self, digits: Sequence[DeviceDigit], values: Positions) -> Positions:
        return with_digits(np.zeros_like(values), digits, values, whole_axes(self.mesh))

    def meaning(self) -> object:
        """Which digits own the dimension, and who has which indices."""
        return tuple(self._owned()), tuple(self.positions.tolist()), tuple(self.runs[:, 1].tolist())

    def _owned(self) -> list[DeviceDigit]:
        """The digits, as large parts of axes as they make up."""
        return [d for d in coalesce(sorted(self.digits)) if isinstance(d, DeviceDigit)]

    def as_ceil(self) -> list[Factor] | None:
        """The factors under `ceil` that give these blocks; None where there are none.

        Blocks are numbered by digits, whose minor one first: where it is back at 0, the next one
        has its first step.
        """
        lengths = self.runs[:, 1] - self.runs[:, 0]
        block = int(lengths[0])
        if (lengths[:-1] != block).any() or lengths[-1] > block:
            return None
        digits: list[DeviceDigit] = []
        stride = 1
        while stride < len(self.positions):
            first = self.mesh.coordinates(int(self.positions[stride])).items()
            steps = [(axis, unit) for axis, unit in first if unit]
            if len(steps) != 1:
                return None
            ((axis, unit),) = steps
            reached = self.positions[::stride][: -(-self.mesh.axis_size(axis) // unit)]
            others = np.flatnonzero(reached != np.arange(len(reached)) * self.positions[stride])
            values = int(others[0]) if len(others) else len(reached)
            at_top = values * stride >= len(self.positions)
            digit = self._digit(axis, unit, values, digits, at_top=at_top)
            if digit is None:
                return None
            digits.insert(0, digit)
            stride *= digit.size
        if not np.array_equal(
            self._positions(digits, np.arange(len(self.positions))), self.positions
        ):
            return None
        idle = [
            part
            for whole in self._owned()
            for part in complement([digit for digit in digits if inside(digit, whole)], whole)
        ]
        return [*idle, *digits, Local(block)]

    def _digit(
        self, axis: str, unit: int, values: int, below: Sequence[DeviceDigit], *, at_top: bool
    ) -> DeviceDigit | None:
        """The digit that steps by `unit` on an axis, with so many values, or more at the top."""
        end, remainder = divmod(self.mesh.axis_size(axis), unit)
        for size in divisors(end):
            if remainder or not (size == values or (at_top and size > values)):
                continue
            digit = DeviceDigit(axis, end // size, size)
            owned = any(inside(digit, whole) for whole in self._owned())
            if owned and all(apart(digit, other) for other in below):
                return digit
        return None
