"""What a device takes in at least, where targets take several views of one source.

Views that share no element add up; of views that may share some, only the largest counts. Take the
target `concat(0, a[0:4], a[2:8])`: a device that has nothing of `a` needs 8 elements of it, and
takes in 4 + 6 through the two views. They overlap, so 6 are counted, not 10.

Views are told apart by dimension: by their ends, or by what is left modulo a stride of theirs.
Of `a[0::2]` and `a[1::2]` the ends overlap, but modulo 2 the one is at 0 and the other at 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from redistrib.models.copies import Copy, Line

Bytes = NDArray[np.int64]

MAX_PAIRED = 256
"""Views whose ends overlap that are compared with each other; of more, the largest counts."""


class Taken(NamedTuple):
    """What devices, by number, take in through one view of a source: elements of so many bytes."""

    copy: Copy
    devices: NDArray[np.int64]
    elements: NDArray[np.int64]
    width: int


def least_bytes(taken: Mapping[object, Sequence[Taken]], devices: int) -> Bytes:
    """Bytes by device that come in at least, of views by the source that they are of."""
    least = np.zeros(devices, np.int64)
    grouped: dict[tuple[int, ...], list[list[int]]] = {}  # layers share their copies
    for views in taken.values():
        key = tuple(id(view.copy) for view in views)
        if key not in grouped:
            grouped[key] = overlapping([view.copy.reads for view in views])
        for group in grouped[key]:
            most = np.zeros(devices, np.int64) if len(group) > 1 else least
            for view in (views[n] for n in group):
                bytes_ = view.elements * view.width
                if len(group) > 1:
                    most[view.devices] = np.maximum(most[view.devices], bytes_)
                else:
                    least[view.devices] += bytes_
            if len(group) > 1:
                least += most
    return least


def overlapping(views: Sequence[tuple[Line, ...]]) -> list[list[int]]:
    """The numbers of views in groups: views of different groups share no element.

    >>> def view(*steps: int) -> tuple[Line, ...]:
    ...     return (Line(steps[0], (steps[1:],)),)
    >>> overlapping([view(0, 4, 2), view(1, 4, 2), view(8, 4, 1), view(11, 2, 1)])
    [[0], [1], [2, 3]]
    """
    groups = [list(range(len(views)))]
    finer = True
    while finer:
        before = len(groups)
        for dim in range(len(views[0]) if views else 0):
            groups = [part for group in groups for part in _swept(group, views, dim)]
        finer = len(groups) > before
    return [
        part
        for group in groups
        for part in (_paired(group, views) if len(group) <= MAX_PAIRED else [group])
    ]


def _swept(
    group: Iterable[int], views: Sequence[tuple[Line, ...]], dim: int
) -> Iterator[list[int]]:
    """The views in groups whose ranges of positions in a dimension overlap."""
    part: list[int] = []
    end = -1
    for n in sorted(group, key=lambda n: views[n][dim].start):
        line = views[n][dim]
        if part and line.start > end:
            yield part
            part = []
        part.append(n)
        end = max(end, line.start + line.extent(0))
    yield part


def _paired(group: Sequence[int], views: Sequence[tuple[Line, ...]]) -> list[list[int]]:
    """The views in groups, each compared with each."""
    parts: list[list[int]] = []
    for n in group:
        near = [part for part in parts if not all(apart(views[n], views[m]) for m in part)]
        parts = [part for part in parts if part not in near]
        parts.append([*(m for part in near for m in part), n])
    return parts


def apart(first: tuple[Line, ...], second: tuple[Line, ...]) -> bool:
    """Whether two views of a source share no element, as far as its dimensions tell."""
    return any(_lines_apart(a, b) for a, b in zip(first, second, strict=True))


def _lines_apart(a: Line, b: Line) -> bool:
    """Whether no position is on both lines."""
    if a.start + a.extent(0) < b.start or b.start + b.extent(0) < a.start:
        return True
    for modulus in {stride for _, stride in (*a.steps, *b.steps)}:
        gap = (b.start - a.start) % modulus
        if gap > a.extent(modulus) and gap + b.extent(modulus) < modulus:
            return True
    return False
