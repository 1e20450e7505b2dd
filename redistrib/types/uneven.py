"""Rules that cut a dimension into blocks that need not be equal.

Without a rule, the factors of a dimension divide it. With one, they need not; 10 over 4 falls into

    ceil       3, 3, 3, 1    blocks of ceil(10 / 4), the last shorter or empty: JAX, XLA, Shardy
    balanced   3, 3, 2, 2    the first 10 % 4 blocks have one more: numpy.array_split
    nested     3, 2, 3, 2    over 2, then 2: each factor cuts, by ceil, what the one before left it:
                             torch.chunk and DTensor
    sizes(...)               as given, one for each block

>>> [sizes_of(block_ends(10, (2, 2), rule)) for rule in (BALANCED, NESTED)]
[[3, 3, 2, 2], [3, 2, 3, 2]]

Under `ceil` a dimension is that of an even type of a *padded* size, without the indices from its
own size on. Local factors are possible, and the product of all factors is the padded size:
`1000{_4,x,_64}:ceil` over x=4 is padded to 1024 = 4 * 4 * 64, block-cyclic in blocks of 64, and the
last block, of 40, is cut off. Without a local factor at the end the blocks are as small as they can
be.

>>> padded_size(1000, [Local(4), DeviceDigit("x", 1, 4), Local(64)])
1024
>>> padded_size(10, [DeviceDigit("x", 1, 4)])
12
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from math import prod

import numpy as np
from numpy.typing import NDArray

from redistrib.errors import LayoutError
from redistrib.text import as_integer, brief, is_number
from redistrib.types.digits import DeviceDigit, Factor, Local
from redistrib.types.mesh import check_enumerable

Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Ceil:
    """Blocks of equal size, as small as they can be, of which the last are shorter or empty."""

    def __str__(self) -> str:
        return "ceil"


@dataclass(frozen=True, slots=True)
class Balanced:
    """Blocks that differ by one at most, the larger ones first."""

    def __str__(self) -> str:
        return "balanced"


@dataclass(frozen=True, slots=True)
class Nested:
    """One factor after the other cuts, by ceil, each block that those before it have made."""

    def __str__(self) -> str:
        return "nested"


@dataclass(frozen=True, slots=True)
class Sizes:
    """Blocks of these sizes, in row-major order of the factors."""

    sizes: tuple[int, ...]

    def __str__(self) -> str:
        return f"sizes({','.join(map(str, self.sizes))})"


Rule = Ceil | Balanced | Nested | Sizes
BlockRule = Balanced | Nested | Sizes
"""The rules under which each device holds one block, told by its number alone."""
CEIL, BALANCED, NESTED = Ceil(), Balanced(), Nested()
BY_NAME: dict[str, Rule] = {str(rule): rule for rule in (CEIL, BALANCED, NESTED)}
RULES = "ceil, balanced, nested or sizes(...)"


def as_rule(value: object) -> Rule:
    """A rule given as one, or by name. Raises LayoutError for anything else.

    >>> as_rule("balanced"), as_rule("sizes(3, 3, 4)")
    (Balanced(), Sizes(sizes=(3, 3, 4)))
    """
    if isinstance(value, (Ceil, Balanced, Nested)):
        return value
    sizes: Sequence[object] | None = value.sizes if isinstance(value, Sizes) else None
    if isinstance(value, str):
        if value in BY_NAME:
            return BY_NAME[value]
        name, _, arguments = value.partition("(")
        if name == "sizes" and arguments.endswith(")"):
            entries = [entry.strip() for entry in arguments[:-1].split(",")]
            sizes = [int(e) if is_number(e) else None for e in entries]
    if isinstance(sizes, (list, tuple)):
        numbers = [n for n in map(as_integer, sizes) if n is not None and n >= 0]
        if len(numbers) == len(sizes):
            return Sizes(tuple(numbers))
    raise LayoutError(f"a rule for uneven blocks is {RULES}; got {brief(value)}", rule=value)


def padded_size(n: int, factors: Sequence[Factor]) -> int:
    """The size that a dimension under `ceil` is padded to: the product of its factors.

    Without a local factor at the end it is the least multiple of their product.
    """
    product = prod([factor.size for factor in factors])
    return product if factors and isinstance(factors[-1], Local) else -(-n // product) * product


@lru_cache(maxsize=1024)
def block_ends(n: int, counts: tuple[int, ...], rule: BlockRule) -> tuple[int, ...]:
    """Where the blocks of a dimension begin, in order, and where the last one ends.

    `counts` are the sizes of the factors, major to minor. Raises LayoutError for too many blocks,
    and where given sizes are not one for each block, n in all.
    """
    blocks = prod(counts)
    check_enumerable(blocks)
    match rule:
        case Balanced():
            least, more = divmod(n, blocks)
            return tuple(least * block + min(block, more) for block in range(blocks + 1))
        case Nested():
            sizes = [n]
            for count in counts:
                steps = [(size, -(-size // count)) for size in sizes]
                sizes = [
                    min(step, max(0, size - block * step))
                    for size, step in steps
                    for block in range(count)
                ]
            return tuple(accumulate(sizes, initial=0))
        case Sizes(sizes_given):
            if len(sizes_given) != blocks or sum(sizes_given) != n:
                raise LayoutError(
                    f"sizes(...) gives each block its size: {blocks} sizes, {n} in all; got "
                    f"{len(sizes_given)} with the sum {sum(sizes_given)}, {brief(sizes_given)}",
                    sizes=sizes_given,
                )
            return tuple(accumulate(sizes_given, initial=0))


def sizes_of(ends: Sequence[int]) -> list[int]:
    """The sizes of blocks, from their ends."""
    return [b - a for a, b in pairwise(ends)]


def most_held(n: int, factors: Sequence[Factor], rule: Rule) -> int:
    """The indices of a dimension that the device holds which holds most of them."""
    match rule:
        case Ceil():  # the first device: no other has an index that is as far from its last one
            return count_held(n, factors, rule, [0] * len(factors))
        case Balanced() | Nested() | Sizes():
            return max(sizes_of(block_ends(n, _sizes(factors), rule)))


def count_held(n: int, factors: Sequence[Factor], rule: Rule, values: Sequence[int]) -> int:
    """The indices of a dimension that a device holds which has these values of its owners.

    >>> factors = [Local(2), DeviceDigit("x", 1, 2), Local(3)]
    >>> count_held(8, factors, CEIL, [0]), count_held(8, factors, CEIL, [1])
    (5, 3)
    """
    if not isinstance(rule, Ceil):
        return _block(n, factors, rule, values)[1] - _block(n, factors, rule, values)[0]
    # Digit by digit, major first: all that a smaller value of a local factor leads, then the last.
    stride = padded_size(n, factors)
    inside = stride // prod([f.size for f in factors if isinstance(f, DeviceDigit)])
    count, remaining, digits = 0, n, iter(values)
    for factor in factors:
        stride //= factor.size
        match factor:
            case Local(size):
                inside //= size
                full = min(remaining // stride, size)
                count += full * inside
                if full == size:
                    return count
                remaining -= full * stride
            case DeviceDigit():
                start = next(digits) * stride
                if remaining >= start + stride:
                    return count + inside
                remaining = max(0, remaining - start)
    return count + min(remaining, stride)


def runs_held(
    n: int, factors: Sequence[Factor], rule: Rule | None, values: Sequence[int]
) -> Indices:
    """The same indices as runs, ascending: `[run, (start, stop)]`; without a rule, of an even one.

    >>> factors = [Local(2), DeviceDigit("x", 1, 2), Local(3)]
    >>> runs_held(10, factors, CEIL, [1]).tolist()
    [[3, 6], [9, 10]]
    """
    if not (rule is None or isinstance(rule, Ceil)):
        start, stop = _block(n, factors, rule, values)
        return np.array([[start, stop]] if start < stop else [], np.intp).reshape(-1, 2)
    stride, digits = padded_size(n, factors), iter(values)
    starts: Indices = np.zeros(1, np.intp)
    blocks = factors[:-1] if factors and isinstance(factors[-1], Local) else factors
    for factor in blocks:
        stride //= factor.size
        match factor:
            case DeviceDigit():
                first = next(digits) * stride
                starts = starts + first if first < n else starts[:0]
            case Local(size):
                steps = np.arange(min(size, -(-n // stride))) * stride
                starts = (starts[:, None] + steps).reshape(-1)
    starts = starts[starts < n]
    return np.stack([starts, np.minimum(starts + stride, n)], axis=1)


def _block(
    n: int, factors: Sequence[Factor], rule: BlockRule, values: Sequence[int]
) -> tuple[int, int]:
    """Where the block of a device begins and ends."""
    number = 0
    for factor, value in zip(factors, values, strict=True):
        number = number * factor.size + value
    ends = block_ends(n, _sizes(factors), rule)
    return ends[number], ends[number + 1]


def _sizes(factors: Sequence[Factor]) -> tuple[int, ...]:
    return tuple([factor.size for factor in factors])
