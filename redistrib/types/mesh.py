"""A mesh: named axes over a list of devices."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType

from redistrib.errors import LayoutError, TypeSyntaxError
from redistrib.types.digits import MAX_DIGITS, DeviceDigit, is_number

# `_8` is a local factor in the text of a type, so no axis can be called so.
AXIS_NAME = re.compile(r"(?!_\d+\b)[A-Za-z_][A-Za-z0-9_.\-]*")

MAX_ENUMERATED = 1 << 20
"""Positions that are looked at one by one, where digits do not decide; more would take minutes."""


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

    Raises LayoutError for an illegal name, size or device list.
    """

    axes: tuple[tuple[str, int], ...]
    devices: tuple[int, ...] | None
    _sizes: Mapping[str, int] = field(repr=False, compare=False)

    def __init__(
        self,
        axes: Mapping[str, int] | Iterable[tuple[str, int]] = (),
        /,
        *,
        devices: Iterable[int] | None = None,
        **named: int,
    ) -> None:
        pairs = [*(axes.items() if isinstance(axes, Mapping) else axes), *named.items()]
        sizes: dict[str, int] = {}
        for name, size in pairs:
            if not isinstance(name, str) or not AXIS_NAME.fullmatch(name):
                raise LayoutError(
                    "an axis name is a letter or '_' followed by letters, digits, '_', '.' or '-', "
                    f"and not '_' with digits only; got {name!r}",
                    axis=name,
                )
            if name in sizes:
                raise LayoutError(f"axis names are distinct; got {name!r} twice", axis=name)
            if isinstance(size, bool) or not hasattr(size, "__index__") or int(size) < 1:
                raise LayoutError(
                    f"the size of an axis is a positive integer; got {name}={size!r}",
                    axis=name,
                    size=size,
                )
            sizes[name] = int(size)
        total = prod(sizes.values())
        ids = None if devices is None else tuple(int(device) for device in devices)
        if ids is not None:
            if len(ids) != total:
                raise LayoutError(
                    f"a mesh of {total} positions needs {total} device ids; got {len(ids)}",
                    devices=ids,
                )
            if len(set(ids)) != total or min(ids) < 0:
                raise LayoutError(
                    f"device ids are distinct and not negative; got {list(ids)}", devices=ids
                )
            if ids == tuple(range(total)):
                ids = None
        object.__setattr__(self, "axes", tuple(sizes.items()))
        object.__setattr__(self, "devices", ids)
        object.__setattr__(self, "_sizes", sizes)

    @classmethod
    def parse(cls, text: str) -> Mesh:
        """The mesh written as `x=2,y=4`; the empty text is the mesh of one device.

        >>> Mesh.parse("x=2, y=4") == Mesh(x=2, y=4)
        True

        Raises TypeSyntaxError for malformed text, LayoutError for an illegal mesh.
        """
        pairs = []
        column = 1
        for item in text.split(",") if text.strip() else []:
            match = re.fullmatch(rf"\s*({AXIS_NAME.pattern})\s*=\s*(\d+)\s*", item)
            if match is None or not is_number(match[2]):
                raise TypeSyntaxError(
                    f"column {column}: a mesh is written NAME=SIZE,NAME=SIZE, sizes of at most "
                    f"{MAX_DIGITS} digits; got {item.strip()!r}",
                    text=text,
                    column=column,
                )
            pairs.append((match[1], int(match[2])))
            column += len(item) + 1
        return cls(pairs)

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

    def axis_size(self, axis: str) -> int:
        """Size of an axis. Raises LayoutError for an unknown one, naming those there are."""
        try:
            return self._sizes[axis]
        except KeyError:
            known = ", ".join(self._sizes) or "none"
            raise LayoutError(
                f"unknown axis {axis!r}; the mesh has: {known}", axis=axis, mesh=self
            ) from None

    def coordinates(self, position: int) -> dict[str, int]:
        """Coordinate on each axis of a position (row-major).

        >>> Mesh(x=2, y=4).coordinates(6)
        {'x': 1, 'y': 2}

        Raises LayoutError if the position is outside the mesh.
        """
        if not 0 <= position < self.num_devices:
            raise LayoutError(
                f"a position of this mesh is 0 to {self.num_devices - 1}; got {position}",
                position=position,
            )
        result = {}
        for name, size in reversed(self.axes):
            position, result[name] = divmod(position, size)
        return {name: result[name] for name, _ in self.axes}

    def __str__(self) -> str:
        return ",".join(f"{name}={size}" for name, size in self.axes)

    def __repr__(self) -> str:
        devices = "" if self.devices is None else f", devices={list(self.devices)}"
        return f"Mesh({dict(self.axes)}{devices})"

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.axes, self.devices))


def _rebuild(axes: tuple[tuple[str, int], ...], devices: tuple[int, ...] | None) -> Mesh:
    return Mesh(axes, devices=devices)


def whole_axes(mesh: Mesh) -> tuple[DeviceDigit, ...]:
    """The axes of a mesh as digits, without those of size 1: its positions are row-major over them.

    >>> [str(axis) for axis in whole_axes(Mesh(x=2, y=1, z=3))]
    ['x:(1)2', 'z:(1)3']
    """
    return tuple(DeviceDigit(name, 1, size) for name, size in mesh.axes if size > 1)
