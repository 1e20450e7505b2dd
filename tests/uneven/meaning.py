"""What uneven layouts mean, written a second time: index by index, with numpy and loops.

`drawn` gives random texts of uneven dimensions; `held` who has which indices, by the definition of
the rule alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations, product
from math import prod

import numpy as np

import redistrib as rd
from redistrib.types.digits import DeviceDigit, Local

Held = tuple[tuple[int, ...], ...]
"""By position of the mesh, the indices of a dimension."""

MESHES = tuple(rd.Mesh(text) for text in ("x=2,y=1", "x=3", "x=4", "x=2,y=3"))


def held(n: int, factors: Sequence[str], rule: str, mesh: rd.Mesh) -> Held:
    """By position, the indices of a dimension of size n with these factors under a rule."""
    parsed = [_parsed(factor, mesh) for factor in factors]
    owners = [f for f in parsed if isinstance(f, DeviceDigit)]
    found = []
    for position in range(mesh.num_devices):
        at = mesh.coordinates(position)
        values = [at[o.axis] // (mesh.axis_size(o.axis) // o.end) % o.size for o in owners]
        if rule == "ceil":
            found.append(tuple(i for i in range(n) if _owned(i, n, parsed, values)))
        else:
            number = 0
            for owner, value in zip(owners, values, strict=True):
                number = number * owner.size + value
            found.append(_blocks(n, [owner.size for owner in owners], rule)[number])
    return tuple(found)


def _owned(i: int, n: int, factors: Sequence[DeviceDigit | Local], values: Sequence[int]) -> bool:
    """Whether an index has these values of its owners, in the digits of the padded size."""
    sizes = [factor.size for factor in factors]
    stride = -(-n // prod(sizes)) if not isinstance(factors[-1], Local) else 1
    digits: list[int] = []
    rest = i // stride
    for size in reversed(sizes):
        digits.insert(0, rest % size)
        rest //= size
    return [d for d, f in zip(digits, factors, strict=True) if isinstance(f, DeviceDigit)] == values


def _blocks(n: int, counts: Sequence[int], rule: str) -> list[tuple[int, ...]]:
    indices = np.arange(n)
    if rule == "balanced":
        return [tuple(part.tolist()) for part in np.array_split(indices, prod(counts))]
    if rule == "nested":
        parts = [indices]
        for count in counts:
            parts = [chunk for part in parts for chunk in _chunks(part, count)]
        return [tuple(part.tolist()) for part in parts]
    sizes = [int(size) for size in rule.removeprefix("sizes(")[:-1].split(",")]
    return [tuple(part.tolist()) for part in np.split(indices, np.cumsum(sizes)[:-1])]


def _chunks(part: np.ndarray, count: int) -> list[np.ndarray]:
    """torch.chunk, filled up with empty chunks."""
    size = -(-len(part) // count)
    return [part[k * size : (k + 1) * size] for k in range(count)]


def _parsed(factor: str, mesh: rd.Mesh) -> DeviceDigit | Local:
    if factor.startswith("_"):
        return Local(int(factor[1:]))
    axis, colon, rest = factor.partition(":")
    if not colon:
        return DeviceDigit(axis, 1, mesh.axis_size(axis))
    pre, _, size = rest[1:].partition(")")
    return DeviceDigit(axis, int(pre), int(size))


def _sizes(factors: Sequence[str], mesh: rd.Mesh) -> list[int]:
    return [_parsed(factor, mesh).size for factor in factors]


def layouts(n: int, mesh: rd.Mesh) -> Iterator[tuple[tuple[str, ...], str]]:
    """Layouts of a dimension of size n: factors and rule."""
    names = [name for name, _ in mesh.axes]
    digits: list[tuple[str, ...]] = [(name,) for name in names]
    for name in names:
        size = mesh.axis_size(name)
        digits += [
            (f"{name}:(1){k}", f"{name}:({k}){size // k}") for k in range(2, size) if size % k == 0
        ]
    seen = set()
    for chosen in product((False, True), repeat=len(digits)):
        flat = [f for group, taken in zip(digits, chosen, strict=True) if taken for f in group]
        axes = [factor.partition(":")[0] for factor in flat]
        whole = [factor for factor in flat if ":" not in factor]
        if not flat or any(axes.count(w) > 1 for w in whole):
            continue
        for count in range(1, len(flat) + 1):
            for order in permutations(flat, count):
                if order in seen:
                    continue
                seen.add(order)
                yield from _ruled(n, order, mesh)


def _ruled(n: int, order: tuple[str, ...], mesh: rd.Mesh) -> Iterator[tuple[tuple[str, ...], str]]:
    for rule in ("ceil", "balanced", "nested"):
        yield order, rule
    blocks = prod(_sizes(order, mesh))
    for seed in range(3):
        rng = np.random.default_rng([n, blocks, seed])
        cuts = np.sort(rng.integers(0, n + 1, blocks - 1))
        yield order, f"sizes({','.join(map(str, np.diff([0, *cuts, n]).tolist()))})"
    for block in (1, 2, 3):
        if blocks * block >= n:
            yield (*order, f"_{block}"), "ceil"
        least = -(-n // (blocks * block))
        for cycles in {max(least, 2), least + 2}:
            yield (f"_{cycles}", *order, f"_{block}"), "ceil"
            if len(order) > 1:
                yield (order[0], f"_{cycles}", *order[1:], f"_{block}"), "ceil"
                yield (f"_{cycles}", order[0], "_2", *order[1:], f"_{block}"), "ceil"
