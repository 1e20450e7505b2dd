"""A mesh: named axes over a list of devices.

On x=2,y=4 a device has a coordinate on each axis, and a *position*, the row-major number of its
coordinates: position 6 is x=1, y=2. With devices 7, 6, ..., 0 the device with id 1 is there.

>>> mesh = Mesh({"x": 2, "y": 4}, devices=range(7, -1, -1))
>>> mesh.coordinates(6), mesh.ids[6]
({'x': 1, 'y': 2}, 1)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from math import prod
from types import MappingProxyType

import numpy as np

from redistrib.errors import LayoutError
from redistrib.text import AXIS_NAME, MAX_INTEGER, Scanner, as_integer, brief
from redistrib.types.digits import DeviceDigit, Positions

MAX_POSITIONS = 1 << 60
"""Positions of a mesh: numpy counts them in 64 bits."""
MAX_ENUMERATED = 1 << 20
"""Positions that are looked at one by one, where digits do not decide; more would take minutes."""
MAX_CROSSED = 1 << 18
"""Devices of either mesh where an array crosses to another one: they are compared one by one."""

_AXIS = re.compile(rf"({AXIS_NAME.pattern})\s*=\s*([0-9]+)", re.ASCII)


def check_enumerable(count: int) -> None:
    """Raise LayoutError for more positions than MAX_ENUMERATED."""
    if count > MAX_ENUMERATED:
        raise LayoutError(
            f"where no digits match, positions are enumerated, at most {MAX_ENUMERATED}; "
            f"got {count}",
            positions=count,
        )


@dataclass(frozen=True, slots=True, init=False)
class Mesh:
    """An ordered list of named axes with sizes, over devices in row-major order.

    `devices` gives the device id at each position of the mesh (row-major); None stands for
    0, 1, 2, ... A *position* is an index into that order.

    >>> mesh = Mesh(x=2, y=4)
    >>> str(mesh), mesh.num_devices, mesh.axis_size("y")
    ('x=2,y=4', 8, 4)
    >>> Mesh({"x": 2}, devices=[1, 0]).devices
    (1, 0)

    `axes` are a mapping, pairs, or a text `"x=2,y=4"`. Raises LayoutError for an illegal name, size
    or device list, TypeSyntaxError for malformed text.
    """

    axes: tuple[tuple[str, int], ...]
    devices: tuple[int, ...] | None
    _sizes: Mapping[str, int] = field(repr=False, compare=False)
    _first: int | None = field(repr=False, compare=False)

    def __init__(
        self,
        axes: str | Mapping[str, int] | Iterable[tuple[str, int]] = (),
        /,
        *,
        devices: Iterable[int] | None = None,
        **named: int,
    ) -> None:
        sizes: dict[str, int] = {}
        for key, size in (*_pairs(axes), *named.items()):
            name = str(key) if isinstance(key, str) else ""  # numpy's texts too
            if not AXIS_NAME.fullmatch(name):
                raise LayoutError(
                    "an axis name is a letter or '_' followed by letters, digits, '_', '.' or '-', "
                    f"and not '_' with digits only; got {brief(key)}",
                    axis=key,
                )
            if name in sizes:
                raise LayoutError(f"axis names are distinct; got {name!r} twice", axis=name)
            count = as_integer(size)
            if count is None or count < 1:
                raise LayoutError(
                    f"the size of an axis is a positive integer; got {name}={brief(size)}",
                    axis=name,
                    size=size,
                )
            sizes[name] = count
        total = prod(sizes.values())
        if total > MAX_POSITIONS:
            raise LayoutError(
                f"a mesh has at most {MAX_POSITIONS} positions; got {brief(sizes)}", sizes=sizes
            )
        object.__setattr__(self, "axes", tuple(sizes.items()))
        ids = None if devices is None else _ids(devices, total)
        object.__setattr__(self, "devices", ids)
        ascending = ids is not None and ids == tuple(range(ids[0], ids[0] + total))
        object.__setattr__(self, "_first", ids[0] if ids and ascending else None)
        object.__setattr__(self, "_sizes", sizes)

    @classmethod
    def parse(cls, text: str) -> Mesh:
        """The mesh written as `x=2,y=4`; the empty text is the mesh of one device.

        >>> Mesh.parse("x=2, y=4") == Mesh("x=2,y=4") == Mesh(x=2, y=4)
        True

        Raises TypeSyntaxError for malformed text, LayoutError for an illegal mesh.
        """
        return cls(_read_axes(text))

    @property
    def sizes(self) -> Mapping[str, int]:
        """Axis sizes by name, in mesh order."""
        return MappingProxyType(dict(self._sizes))

    @property
    def num_devices(self) -> int:
        """Number of positions of the mesh."""
        return prod(self._sizes.values())

    @property
    def ids(self) -> tuple[int, ...]:
        """The device id at each position. Raises LayoutError for too many to enumerate."""
        check_enumerable(self.num_devices)
        return tuple(range(self.num_devices)) if self.devices is None else self.devices

    @property
    def first_id(self) -> int | None:
        """The first device id where the others follow one by one; else None."""
        return 0 if self.devices is None else self._first

    def same_devices(self, other: Mesh) -> bool:
        """Whether two meshes are over the same devices, in any order."""
        if self.num_devices != other.num_devices:
            return False
        if self.first_id is not None and other.first_id is not None:
            return self.first_id == other.first_id
        return bool((home_positions(self, other) >= 0).all())

    def shares_devices(self, other: Mesh) -> bool:
        """Whether some device is on both meshes.

        >>> Mesh(x=2).shares_devices(Mesh({"x": 2}, devices=[2, 3]))
        False
        """
        ours, theirs = self.first_id, other.first_id
        if ours is not None and theirs is not None:
            return ours < theirs + other.num_devices and theirs < ours + self.num_devices
        return bool((home_positions(self, other) >= 0).any())

    def __hash__(self) -> int:
        # Not of all ids: a mesh of 65,536 devices is asked for its hash often.
        return hash((self.axes, self.devices and self.devices[:8]))

    def axis_size(self, axis: str) -> int:
        """Size of an axis. Raises LayoutError for an unknown one, naming those there are."""
        try:
            return self._sizes[axis]
        except (KeyError, TypeError):  # a list is no name, and has no hash
            known = ", ".join(self._sizes) or "none"
            raise LayoutError(
                f"unknown axis {brief(axis)}; the mesh has: {known}", axis=axis, mesh=self
            ) from None

    def coordinates(self, position: int) -> dict[str, int]:
        """Coordinate on each axis of a position (row-major).

        >>> Mesh(x=2, y=4).coordinates(6)
        {'x': 1, 'y': 2}

        Raises LayoutError if the position is outside the mesh.
        """
        remainder = as_integer(position)
        if remainder is None or not 0 <= remainder < self.num_devices:
            raise LayoutError(
                f"a position of this mesh is 0 to {self.num_devices - 1}; got {brief(position)}",
                position=position,
            )
        result = {}
        for name, size in reversed(self.axes):
            remainder, result[name] = divmod(remainder, size)
        return {name: result[name] for name, _ in self.axes}

    def __str__(self) -> str:
        return ",".join(f"{name}={size}" for name, size in self.axes)

    def __repr__(self) -> str:
        devices = "" if self.devices is None else f", devices={list(self.devices)}"
        return f"Mesh({dict(self.axes)}{devices})"

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.axes, self.devices))


def _pairs(axes: object) -> Iterable[tuple[object, object]]:
    """The axes of a mesh as pairs of name and size, however they are given."""
    if isinstance(axes, str):
        return _read_axes(axes)
    pairs = axes.items() if isinstance(axes, Mapping) else axes
    try:
        return [(name, size) for name, size in pairs]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise LayoutError(
            f"the axes of a mesh are a mapping from names to sizes, or pairs; got {brief(axes)}",
            axes=axes,
        ) from None


def _read_axes(text: str) -> list[tuple[str, int]]:
    """The names and sizes in `x=2,y=4`."""
    scanner = Scanner(text)
    pairs: list[tuple[str, int]] = []
    while not scanner.at_end():
        if pairs and not scanner.accept(","):
            scanner.fail("',' or the end")
        column = scanner.column
        match = scanner.maybe(_AXIS)
        if match is None:
            scanner.fail("NAME=SIZE, as in x=2", column)
        pairs.append((match[1], scanner.number(match[2], match.start(2) + 1)))
    return pairs


def _ids(devices: Iterable[int], total: int) -> tuple[int, ...] | None:
    """Device ids by position; None where they are 0, 1, 2, ..."""
    rule = "device ids are distinct and not negative"
    try:
        entries = [] if isinstance(devices, (str, bytes)) else [*islice(devices, total + 1)]
    except TypeError:
        entries = []
    ids = [as_integer(device) for device in entries]
    if len(ids) != total:
        count = f"more than {total}" if len(ids) > total else str(len(ids))
        raise LayoutError(
            f"a mesh of {total} positions needs {total} device ids; got {count}, {brief(devices)}",
            devices=devices,
        )
    legal = [device for device in ids if device is not None and 0 <= device <= MAX_INTEGER]
    if len(set(legal)) != total:
        raise LayoutError(f"{rule}; got {brief(entries)}", devices=devices)
    return None if legal == list(range(total)) else tuple(legal)


def _rebuild(axes: tuple[tuple[str, int], ...], devices: tuple[int, ...] | None) -> Mesh:
    return Mesh(axes, devices=devices)


@lru_cache(maxsize=16)
def home_positions(mesh: Mesh, onto: Mesh) -> Positions:
    """Per position of the second mesh, that of the same device on the first, or -1.

    >>> home_positions(Mesh(x=4), Mesh({"y": 3}, devices=[5, 3, 1])).tolist()
    [-1, 3, 1]

    Raises LayoutError for too many positions to enumerate.
    """
    ids, onto_ids = np.array(mesh.ids), np.array(onto.ids)
    order = np.argsort(ids)
    place = np.minimum(np.searchsorted(ids, onto_ids, sorter=order), len(ids) - 1)
    positions = order[place]
    return np.where(ids[positions] == onto_ids, positions, -1)


def whole_axes(mesh: Mesh) -> tuple[DeviceDigit, ...]:
    """The axes of a mesh as digits, without those of size 1: its positions are row-major over them.

    >>> [str(axis) for axis in whole_axes(Mesh(x=2, y=1, z=3))]
    ['x:(1)2', 'z:(1)3']
    """
    return tuple(DeviceDigit(name, 1, size) for name, size in mesh.axes if size > 1)
