"""Digits: the parts of a mesh axis and of a dimension that own each other, and their algebra.

A *device digit* `x:(m)k` is the part of axis x with size k that has m positions before it, an
*index digit* `d:(m)k` the same part of dimension d. With coordinate c on an axis of size n, the
device digit has the value  (c // (n / (m k))) % k.  In `f32[12{_2,x}]` on x=3, index 7 of the
dimension is 1, 0, 1 in the digits `0:(1)2`, `0:(2)3`, `0:(6)2`; x owns the one in the middle, so
the device with coordinate 0 holds it:

>>> [7 // (12 // IndexDigit(0, pre, size).end) % size for pre, size in ((1, 2), (2, 3), (6, 2))]
[1, 0, 1]

Digits are cut into parts, parts are merged (`coalesce`), what parts leave of a digit is their
`complement`. Both kinds are named tuples: a plan makes, hashes and compares hundreds of them. The
last section is arithmetic of positions: `axes` are disjoint device digits, whole axes of a mesh for
example, a position is a row-major number over them, and arrays of positions are looked at at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from math import gcd, prod
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from redistrib.errors import LayoutError
from redistrib.text import is_number

TRIAL = 1 << 10
"""Primes up to here are found by trial division."""


class DeviceDigit(NamedTuple):
    """The part of `axis` with `size` values that has `pre` positions before it."""

    axis: str
    pre: int
    size: int

    @property
    def end(self) -> int:
        """Positions of the axis down to and including this digit: `pre * size`."""
        return self.pre * self.size

    def __str__(self) -> str:
        return f"{self.axis}:({self.pre}){self.size}"


class IndexDigit(NamedTuple):
    """The part of dimension `dim` with `size` values that has `pre` positions before it."""

    dim: int
    pre: int
    size: int

    @property
    def end(self) -> int:
        """Positions of the dimension down to and including this digit: `pre * size`."""
        return self.pre * self.size

    def __str__(self) -> str:
        return f"{self.dim}:({self.pre}){self.size}"


@dataclass(frozen=True, slots=True)
class Local:
    """A factor of `size` positions that stays on the device."""

    size: int

    def __str__(self) -> str:
        return f"_{self.size}"


Factor = DeviceDigit | Local
Digit = TypeVar("Digit", DeviceDigit, IndexDigit)
Positions = NDArray[np.intp]
Placement = tuple[DeviceDigit, IndexDigit]
"""A device digit and the index digit of the same size that it owns."""


def is_chain(cuts: Sequence[int]) -> bool:
    """Whether each of the ascending numbers divides the next.

    >>> is_chain([1, 2, 6, 12]), is_chain([1, 2, 3, 6])
    (True, False)
    """
    return all(b % a == 0 for a, b in pairwise(cuts))


def primes(n: int) -> list[int]:
    """Prime factors of n with multiplicity, ascending.

    >>> primes(60), primes(1), primes(2**31 * (2**31 - 1))[-2:]
    ([2, 2, 3, 5], [], [2, 2147483647])
    """
    factors: list[int] = []
    p = 2
    while p * p <= n:
        if p > TRIAL:
            return factors + sorted(_large_primes(n))
        while n % p == 0:
            factors.append(p)
            n //= p
        p += 1
    return factors + [n] * (n > 1)


def prime_of(n: int) -> int:
    """The prime that n is a power of, or 0.

    >>> prime_of(8), prime_of(6), prime_of(1)
    (2, 0, 0)
    """
    distinct = {*primes(n)}
    return distinct.pop() if len(distinct) == 1 else 0


def _large_primes(n: int) -> list[int]:
    """Prime factors of n, all of them above TRIAL, in any order."""
    if _is_prime(n):
        return [n]
    # Pollard's rho: x -> x*x + c repeats itself modulo a factor after about its root of steps, and
    # modulo n much later, so that the difference of two of its numbers has the factor.
    c = 0
    while True:
        slow = fast = 2
        c, factor = c + 1, 1
        while factor == 1:
            slow = (slow * slow + c) % n
            fast = (fast * fast + c) % n
            fast = (fast * fast + c) % n
            factor = gcd(slow - fast, n)
        if factor != n:
            return _large_primes(factor) + _large_primes(n // factor)


def _is_prime(n: int) -> bool:
    """Whether an odd number above 37 is prime, by the test of Miller and Rabin.

    With the first twelve primes as bases no composite below 3 * 10**23 passes.
    """
    twos = ((n - 1) & (1 - n)).bit_length() - 1
    odd = (n - 1) >> twos
    for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37):
        power = pow(base, odd, n)
        if power in (1, n - 1):
            continue
        if not any((power := power * power % n) == n - 1 for _ in range(twos - 1)):
            return False
    return True


def divisors(n: int) -> list[int]:
    """The divisors of n, ascending.

    >>> divisors(12), divisors(1)
    ([1, 2, 3, 4, 6, 12], [1])
    """
    products = [1]
    for p, same in groupby(primes(n)):
        powers = [p**k for k in range(len(list(same)) + 1)]
        products = [d * power for d in products for power in powers]
    return sorted(products)


def object_of(digit: DeviceDigit | IndexDigit) -> str | int:
    """The axis or the dimension that a digit is a part of."""
    return digit.axis if isinstance(digit, DeviceDigit) else digit.dim


def inside(digit: DeviceDigit | IndexDigit, whole: DeviceDigit | IndexDigit) -> bool:
    """Whether a digit is a part of another.

    >>> inside(IndexDigit(0, 4, 3), IndexDigit(0, 2, 6))
    True
    """
    fits = digit.pre % whole.pre == 0 and whole.end % digit.end == 0
    return fits and object_of(digit) == object_of(whole)


def apart(a: DeviceDigit | IndexDigit, b: DeviceDigit | IndexDigit) -> bool:
    """Whether two digits are independent: of two objects, or disjoint and nested in one.

    >>> digit = IndexDigit(0, 1, 2)
    >>> [apart(digit, IndexDigit(*other)) for other in ((0, 4, 3), (0, 3, 2), (1, 1, 2))]
    [True, False, True]
    """
    return b.pre % a.end == 0 or a.pre % b.end == 0 or object_of(a) != object_of(b)


def piece_of(placement: Placement, device: DeviceDigit) -> IndexDigit | None:
    """The index digit that a part of a placement's device digit owns; None if it is no part."""
    whole = placement[0]
    if whole.axis != device.axis or device.pre % whole.pre or whole.end % device.end:
        return None
    return _owned_index(placement, device)


def _owned_index(placement: Placement, device: DeviceDigit) -> IndexDigit:
    """The index digit that a part of a placement's device digit owns."""
    whole, index = placement
    return IndexDigit(index.dim, index.pre * (device.pre // whole.pre), device.size)


def split_off(placement: Placement, device: DeviceDigit) -> Iterator[Placement]:
    """What is left of a placement when a part of its device digit is taken out.

    >>> whole = (DeviceDigit("x", 1, 8), IndexDigit(0, 1, 8))
    >>> [(str(d), str(i)) for d, i in split_off(whole, DeviceDigit("x", 2, 2))]
    [('x:(1)2', '0:(1)2'), ('x:(4)2', '0:(4)2')]
    """
    for part in complement([device], placement[0]):
        yield part, _owned_index(placement, part)


def split_at(
    placements: Iterable[Placement], cuts: Iterable[tuple[str | int, int]]
) -> list[Placement]:
    """Placements, split where a cut (axis or dimension, positions before it) falls inside one.

    >>> whole = (DeviceDigit("x", 1, 8), IndexDigit(0, 3, 8))
    >>> [(str(d), str(i)) for d, i in split_at([whole], [("x", 2), (0, 12), (1, 6)])]
    [('x:(1)2', '0:(3)2'), ('x:(2)2', '0:(6)2'), ('x:(4)2', '0:(12)2')]

    Raises LayoutError if the cuts inside a placement are not nested.
    """
    cuts = list(cuts)
    pieces = []
    for device, index in placements:
        ends = {end for obj, end in cuts if obj == device.axis}
        ends |= {device.pre * end // index.pre for obj, end in cuts if obj == index.dim}
        bounds = sorted(end for end in ends if device.pre < end < device.end)
        if not is_chain([device.pre, *bounds, device.end]):
            raise LayoutError(f"cuts of {device} divide each other; got {bounds}", digit=device)
        pieces += [(part, _owned_index((device, index), part)) for part in cut(device, bounds)]
    return pieces


def cut(whole: Digit, ends: Iterable[int]) -> list[Digit]:
    """A digit cut at these numbers of positions, major to minor; those outside it cut nothing.

    >>> [str(digit) for digit in cut(DeviceDigit("x", 2, 12), [1, 4, 12, 48])]
    ['x:(2)2', 'x:(4)3', 'x:(12)2']

    The numbers inside the digit and its ends divide each other.
    """
    bounds = [whole.pre, *sorted({b for b in ends if whole.pre < b < whole.end}), whole.end]
    kind, obj = type(whole), whole[0]
    return [kind(obj, a, b // a) for a, b in pairwise(bounds)]


def complement(used: Iterable[Digit], whole: Digit) -> list[Digit]:
    """What disjoint nested parts of a digit leave of it, major to minor.

    >>> [str(d) for d in complement([DeviceDigit("x", 2, 2)], DeviceDigit("x", 1, 8))]
    ['x:(1)2', 'x:(4)2']
    """
    parts = []
    kind, obj, end = type(whole), whole[0], whole.pre
    for digit in sorted(used, key=lambda part: part.pre):
        if digit.pre > end:
            parts.append(kind(obj, end, digit.pre // end))
        end = digit.end
    if whole.end > end:
        parts.append(kind(obj, end, whole.end // end))
    return parts


def regrouped(
    axes: Sequence[tuple[int, int]], sizes: Iterable[int]
) -> list[list[tuple[int, int]]] | None:
    """Axes (size, stride), major to minor, cut into runs whose sizes multiply to `sizes`.

    >>> regrouped([(4, 2), (2, 1)], [2, 4])
    [[(2, 4)], [(2, 2), (2, 1)]]

    None where a cut does not divide an axis.
    """
    stack = list(reversed(axes))
    runs = []
    for total in sizes:
        run = []
        wanted = total
        while wanted > 1:
            size, stride = stack.pop()
            if wanted % size == 0:
                run.append((size, stride))
                wanted //= size
            elif size % wanted == 0:
                stack.append((size // wanted, stride))
                run.append((wanted, stride * (size // wanted)))
                break
            else:
                return None
        runs.append(run)
    return runs


def parse_device_digit(text: str, axis_size: int | None = None) -> DeviceDigit:
    """The device digit written `x:(m)k`, or `x` for a whole axis of known size.

    Raises LayoutError for any other text.
    """
    axis, colon, bounds = text.partition(":")
    if not colon and axis_size is not None:
        return DeviceDigit(axis, 1, axis_size)
    pre, size = _pre_and_size(bounds, text)
    return DeviceDigit(axis, pre, size)


def parse_index_digit(text: str) -> IndexDigit:
    """The index digit written `0:(m)k`. Raises LayoutError for any other text."""
    dim, _, bounds = text.partition(":")
    if not is_number(dim):
        raise LayoutError(f"an index digit is written DIM:(PRE)SIZE; got {text!r}", text=text)
    pre, size = _pre_and_size(bounds, text)
    return IndexDigit(int(dim), pre, size)


def _pre_and_size(bounds: str, text: str) -> tuple[int, int]:
    """The numbers in `(m)k`, which stands in the text of a digit."""
    pre, bracket, size = bounds.removeprefix("(").partition(")")
    digits = is_number(pre) and is_number(size) and int(pre) > 0 and int(size) > 0
    if not (bounds.startswith("(") and bracket and digits):
        raise LayoutError(f"a digit is written NAME:(PRE)SIZE; got {text!r}", text=text)
    return int(pre), int(size)


def coalesce(factors: Iterable[Factor]) -> list[Factor]:
    """Merge major-then-minor neighbours: `_a,_b` into `_ab`, `x:(p)k,x:(pk)l` into `x:(p)kl`.

    >>> x, y = DeviceDigit("x", 1, 2), DeviceDigit("x", 2, 4)
    >>> [str(factor) for factor in coalesce([Local(2), Local(3), x, y])]
    ['_6', 'x:(1)8']
    """
    merged: list[Factor] = []
    for factor in factors:
        last = merged[-1] if merged else None
        match last, factor:
            case Local(a), Local(b):
                merged[-1] = Local(a * b)
            case DeviceDigit(x, p, k), DeviceDigit(y, q, m) if x == y and p * k == q:
                merged[-1] = DeviceDigit(x, p, k * m)
            case _:
                merged.append(factor)
    return merged


def merged(*ascending: Positions) -> Positions:
    """The numbers in ascending arrays, ascending, each once.

    >>> merged(np.array([0, 3, 6]), np.array([0, 2, 4, 6])).tolist()
    [0, 2, 3, 4, 6]
    """
    # A stable sort takes runs as they are; numpy.unique hashes each number, at ten times the time.
    numbers: Positions = np.sort(np.concatenate(ascending), kind="stable")
    new: Positions = numbers[1:][numbers[1:] != numbers[:-1]]
    return np.append(numbers[:1], new)


def weight(digit: DeviceDigit, axes: Sequence[DeviceDigit]) -> int:
    """How many positions further the next value of a digit is.

    >>> axes = [DeviceDigit("x", 1, 4), DeviceDigit("y", 1, 3)]
    >>> weight(DeviceDigit("x", 2, 2), axes), weight(DeviceDigit("x", 1, 2), axes)
    (3, 6)
    """
    index = next(n for n, axis in enumerate(axes) if inside(digit, axis))
    return axes[index].end // digit.end * prod(axis.size for axis in axes[index + 1 :])


def digit_values(
    digits: Iterable[DeviceDigit], positions: Positions, axes: Sequence[DeviceDigit]
) -> Positions:
    """The row-major value of these digits at positions over `axes`, elementwise.

    >>> axes = [DeviceDigit("x", 1, 4), DeviceDigit("y", 1, 3)]
    >>> digit_values([DeviceDigit("y", 1, 3), DeviceDigit("x", 2, 2)], np.arange(12), axes)
    array([0, 2, 4, 1, 3, 5, 0, 2, 4, 1, 3, 5])
    """
    values = np.zeros_like(positions)
    for digit in digits:
        values = values * digit.size + positions // weight(digit, axes) % digit.size
    return values


def with_digits(
    positions: Positions,
    digits: Sequence[DeviceDigit],
    values: Positions,
    axes: Sequence[DeviceDigit],
) -> Positions:
    """The positions over `axes` with these digits set to a row-major value, elementwise.

    >>> axes = [DeviceDigit("x", 1, 4), DeviceDigit("y", 1, 3)]
    >>> with_digits(np.arange(12), [DeviceDigit("x", 2, 2)], np.array([1]), axes)
    array([ 3,  4,  5,  3,  4,  5,  9, 10, 11,  9, 10, 11])
    """
    for digit in reversed(digits):
        step = weight(digit, axes)
        positions = positions + (values % digit.size - positions // step % digit.size) * step
        values = values // digit.size
    return positions
