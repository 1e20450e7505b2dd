"""Tilings of HLO shardings, versions 1 and 2: which device holds which tile, as digits of a mesh.

`{devices=[4,2]<=[2,4]T(1,0)}` has 4 x 2 tiles; the devices 0 to 7 in the order of the tiles are
0, 4, 1, 5, ... On x=2,y=4, position 4 x + y, the first tile coordinate is y and the second is x:

>>> tiling = read_tiling(Scanner("=[4,2]<=[2,4]T(1,0)"), 2)
>>> tiling.sizes, tiling.devices.tolist()
((4, 2), [0, 4, 1, 5, 2, 6, 3, 7])
>>> str(tiled(tiling, Mesh(x=2, y=4), (8, 8), "f32", Scanner(""), 1))
'f32[8{y}, 8{x}]'
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial as bind
from math import prod

import numpy as np
from numpy.typing import NDArray

from redistrib.errors import LayoutError
from redistrib.interop.mesh_parts import linear_digits, mesh_digits
from redistrib.text import Scanner
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, regrouped
from redistrib.types.mesh import Mesh
from redistrib.types.uneven import CEIL

Devices = NDArray[np.intp]

_KINDS = ("replicated", "unreduced")
# An iota of a few characters could ask for any amount of memory.
_MOST_DEVICES = 1 << 20
_MOST_SIZES = 32


@dataclass(frozen=True, slots=True)
class Tiling:
    """v1 and v2: tile dimensions, one per dimension and then one per kind; the device of each."""

    sizes: tuple[int, ...]
    devices: Devices
    kinds: tuple[str, ...]


def read_tiling(scanner: Scanner, rank: int) -> Tiling:
    """v1 and v2 after the word `devices`."""
    scanner.expect("=")
    column = scanner.column
    sizes = _sizes(scanner)
    if scanner.accept("<="):
        devices = read_iota(scanner)
    else:
        first = scanner.column
        listed = [scanner.integer("a device id or '<='")]
        while scanner.accept(","):
            listed.append(scanner.integer("a device id"))
        if len(set(listed)) != len(listed):
            scanner.fail("distinct device ids", first)
        devices = np.array(listed)
    if devices.size != prod(sizes):
        scanner.fail(f"as many tiles as there are devices, {devices.size}", column)
    kinds: list[str] = []
    if scanner.accept("last_tile_dim_replicate"):
        kinds = ["replicated"]
    elif scanner.accept("last_tile_dims"):
        scanner.expect("=")
        scanner.expect("{")
        kinds = scanner.listed(lambda: scanner.expect(*_KINDS), "}")
    if len(sizes) - len(kinds) != rank:
        scanner.fail(f"{rank} tile dimensions and {len(kinds)} for last_tile_dims", column)
    return Tiling(tuple(sizes), devices, tuple(kinds))


def tiled(
    tiling: Tiling,
    mesh: Mesh | None,
    shape: Sequence[int],
    dtype: object,
    scanner: Scanner,
    column: int,
) -> ArrayType:
    """The type of a tiling: each tile dimension as digits of the mesh."""
    if mesh is None:
        named = [(f"axis_{dim}", size) for dim, size in enumerate(tiling.sizes) if size > 1]
        mesh = Mesh(named, devices=tiling.devices.tolist())
        names = dict(named)
        axes = [
            [f"axis_{dim}"] if f"axis_{dim}" in names else [] for dim in range(len(tiling.sizes))
        ]
        return _with_kinds(tiling, mesh, shape, dtype, axes)
    position = {device: index for index, device in enumerate(mesh.ids)}
    if sorted(position) != sorted(tiling.devices.tolist()):
        scanner.fail(f"the {mesh.num_devices} devices of the mesh {mesh!r}", column)
    positions = np.array([position[device] for device in tiling.devices.tolist()])
    tiling = _sorted_copies(Tiling(tiling.sizes, positions, tiling.kinds))
    linear = linear_digits(tiling.devices)
    parts = None if linear is None else regrouped(linear, tiling.sizes)
    if parts is None:
        raise LayoutError(
            f"a tile coordinate is made of digits of the mesh {mesh!r}; "
            f"got {scanner.text}; without a mesh, the tiles themselves make one",
            mesh=mesh,
            text=scanner.text,
        )
    count = mesh.num_devices
    digits = [
        [digit for size, step in part for digit in mesh_digits(mesh, count // (step * size), size)]
        for part in parts
    ]
    return _with_kinds(tiling, mesh, shape, dtype, digits)


def _with_kinds(
    tiling: Tiling,
    mesh: Mesh,
    shape: Sequence[int],
    dtype: object,
    parts: Sequence[Sequence[str | DeviceDigit]],
) -> ArrayType:
    rank = len(tiling.sizes) - len(tiling.kinds)
    partial = [
        digit
        for kind, part in zip(tiling.kinds, parts[rank:], strict=True)
        if kind == "unreduced"
        for digit in part
    ]
    rules = dict.fromkeys(range(rank), CEIL)
    return ArrayType(mesh, dtype, shape, parts[:rank], partial, uneven=rules)


def _sorted_copies(tiling: Tiling) -> Tiling:
    """The same tiling, its copies in ascending order, and its addends in that of their first copy.

    Which of the copies is which does not matter, and XLA too sorts them.
    """
    rank = len(tiling.sizes) - len(tiling.kinds)
    groups = {
        kind: [rank + index for index, other in enumerate(tiling.kinds) if other == kind]
        for kind in ("unreduced", "replicated")
    }
    addends, copies = (prod(tiling.sizes[dim] for dim in group) for group in groups.values())
    grid = tiling.devices.reshape(tiling.sizes)
    grid = grid.transpose([*range(rank), *groups["unreduced"], *groups["replicated"]])
    grid = np.sort(grid.reshape(-1, addends, copies), axis=2)
    grid = np.take_along_axis(grid, np.argsort(grid[:, :, :1], axis=1), axis=1)
    sizes = (*tiling.sizes[:rank], addends, copies)
    return Tiling(sizes, grid.reshape(-1), ("unreduced", "replicated"))


def read_iota(scanner: Scanner) -> Devices:
    """`[2,4]T(1,0)` or `[8]`: ids 0, 1, 2, ... reshaped and transposed, in the order of tiles."""
    sizes = _sizes(scanner)
    ids = np.arange(prod(sizes)).reshape(sizes)
    if len(sizes) > 1:
        scanner.expect("T")
        column = scanner.column
        scanner.expect("(")
        order = scanner.listed(scanner.integer, ")")
        if sorted(order) != list(range(len(sizes))):
            scanner.fail(f"a permutation of 0 to {len(sizes) - 1}", column)
        ids = ids.transpose(order)
    return ids.reshape(-1)


def format_iota(devices: Devices) -> str | None:
    """Device ids as a transposed iota, where they are one."""
    digits = (
        linear_digits(devices) if sorted(devices.tolist()) == list(range(devices.size)) else None
    )
    if digits is None:
        return None
    by_step = sorted(range(len(digits)), key=lambda index: -digits[index][1])
    sizes = ",".join(str(digits[index][0]) for index in by_step) or "1"
    order = [by_step.index(index) for index in range(len(digits))]
    transposed = f"T({','.join(map(str, order))})" if len(order) > 1 else ""
    return f"<=[{sizes}]{transposed}"


def _sizes(scanner: Scanner) -> list[int]:
    """`[2,4]`: the sizes of tile dimensions or of an iota."""
    column = scanner.column
    scanner.expect("[")
    sizes = scanner.listed(bind(scanner.integer, "a size", 1), "]")
    if len(sizes) > _MOST_SIZES or prod(sizes) > _MOST_DEVICES:
        scanner.fail(f"at most {_MOST_SIZES} sizes and {_MOST_DEVICES} devices", column)
    return sizes
