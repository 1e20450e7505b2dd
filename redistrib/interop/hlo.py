"""HLO sharding strings, in the three forms that XLA prints.

    {devices=[2,1,4]0,1,2,3,4,5,6,7 last_tile_dim_replicate}     v1: the devices listed, by tile
    {devices=[4,2]<=[2,4]T(1,0)}                                 v2: a transposed iota
    {mesh['x'=2,'y'=4], [{'x'}, {'y':(1)2}], unreduced={...}}    v3: axes of a mesh

and {replicated}, {unreduced}, {maximal device=0}, {maximal_mesh[device_id=0]}, and tuples of these.
v1 and v2 say which device holds which tile; on a mesh, a tile coordinate has to be made of digits
of its axes. Without a mesh, the tile dimensions themselves are the axes, which always works.

{manual} and {unknown} say nothing of what a device holds and are errors, as are shard_as and
shard_like, which tie shardings together. Metadata is skipped but for the reduction of a partial
set, `op_type="sdy::reduction_op"`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial as bind
from math import prod

import numpy as np
from numpy.typing import NDArray

from redistrib.errors import LayoutError
from redistrib.interop.mesh_parts import (
    grouped_digits,
    linear_digits,
    mesh_digits,
)
from redistrib.interop.shardy import (
    REDUCTIONS,
    format_refs,
    format_unreduced,
    read_axis_size,
    read_dims,
    read_sets,
)
from redistrib.interop.words import array_shape, check_reduction, owners, with_copies
from redistrib.text import Scanner
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, digit_values
from redistrib.types.mesh import Mesh, whole_axes

Devices = NDArray[np.intp]

_KINDS = ("replicated", "unreduced")
_WORD = re.compile(r"[a-z_]+")
_VALUE = re.compile(r'"(?:[^"\\]|\\.)*"|[\w.\-]+')
# Versions 1 and 2 have no word for a reduction: Shardy's export says it in the metadata.
_REDUCTION = {"op_type": '"sdy::reduction_op"', "op_name": '"{}"'}
# An iota of a few characters could ask for any amount of memory.
_MOST_DEVICES = 1 << 20
_MOST_SIZES = 32


@dataclass(frozen=True, slots=True)
class _Tiling:
    """v1 and v2: tile dimensions, one per dimension and then one per kind; the device of each."""

    sizes: tuple[int, ...]
    devices: Devices
    kinds: tuple[str, ...]


def parse_hlo(
    text: str,
    mesh: Mesh | None,
    shape: Sequence[int],
    dtype: object,
    *,
    num_devices: int | None = None,
    closed: bool = False,
) -> ArrayType:
    """The type of an array of a global shape with an HLO sharding.

    Without a mesh, v3 has its own, v1 and v2 get an axis `axis_i` for every tile dimension i, over
    the devices in their order, and {replicated} and {unreduced} one axis of `num_devices`.
    `closed` takes open dimensions of v3 as they stand.

    >>> text = "{devices=[4,2]<=[2,4]T(1,0)}"
    >>> str(parse_hlo(text, Mesh(x=2, y=4), (8, 8), "float32"))
    'f32[8{y}, 8{x}]'
    >>> parse_hlo(text, None, (8, 8), "float32").mesh
    Mesh({'axis_0': 4, 'axis_1': 2}, devices=[0, 4, 1, 5, 2, 6, 3, 7])

    A partial set is a sum unless v3 or the metadata of v1 and v2 names another reduction. Raises
    TypeSyntaxError with the column for malformed text, LayoutError where a sharding has no type on
    the mesh.
    """
    scanner = Scanner(text)
    shape = array_shape(shape, mesh, stated=True)
    t = _sharding(scanner, mesh, shape, dtype, num_devices, closed=closed)
    scanner.end()
    return t


def parse_hlo_tuple(
    text: str, mesh: Mesh | None, shapes: Sequence[Sequence[int]], dtypes: Sequence[object]
) -> list[ArrayType]:
    """The types of a tuple of arrays with a tuple sharding `{{...}, {...}}`.

    Raises as `parse_hlo`, and TypeSyntaxError unless there is one sharding per array.
    """
    scanner = Scanner(text)
    scanner.expect("{")
    column = scanner.column
    arrays = iter(zip(shapes, dtypes, strict=True))

    def element() -> ArrayType:
        array = next(arrays, None)
        if array is None:
            scanner.fail(f"'}}' after {len(shapes)} shardings, one per array")
        return _sharding(scanner, mesh, *array, None)

    found = scanner.listed(element, "}")
    if len(found) != len(shapes):
        scanner.fail(f"{len(shapes)} shardings, one per array", column)
    scanner.end()
    return found


def format_hlo(t: ArrayType, version: int = 2) -> str:
    """The sharding of a type in the form of version 1, 2 (a list where no iota serves) or 3.

    >>> t = ArrayType(Mesh(x=2, y=4), "f32", (8, 8), [("y",), ()])
    >>> print(*(format_hlo(t, version) for version in (1, 2, 3)), sep=chr(10))
    {devices=[4,1,2]0,4,1,5,2,6,3,7 last_tile_dim_replicate}
    {devices=[4,1,2]<=[2,4]T(1,0) last_tile_dim_replicate}
    {mesh['x'=2,'y'=4], [{'y'}, {}]}

    Raises LayoutError for what HLO has no word for.
    """
    dims = owners(t, "an HLO sharding")
    check_reduction(t, "an HLO sharding", *REDUCTIONS)
    if version == 3:
        return _format_mesh(t, dims)
    if t.mesh.num_devices == 1 and t.mesh.devices is not None:
        return f"{{maximal device={t.mesh.devices[0]}}}"
    partial = list(t.partial)
    copies = t.free_digits
    if not any(dims):
        if not partial:
            return "{replicated}"
        if not copies:
            return f"{{unreduced{_format_reduction(t)}}}"
    kinds = [k for k, digits in (("unreduced", partial), ("replicated", copies)) if digits]
    parts = [*dims, *(digits for digits in (partial, copies) if digits)]
    sizes = [prod(digit.size for digit in digits) for digits in parts]
    # Positions in the order of tiles: the inverse of the tile number at every position.
    everywhere = np.arange(t.mesh.num_devices)
    order = np.argsort(
        digit_values([d for digits in parts for d in digits], everywhere, whole_axes(t.mesh))
    )
    devices = np.array(t.mesh.ids)[order]
    listed = None if version == 1 else _format_iota(devices)
    if listed is None:
        listed = ",".join(map(str, devices.tolist()))
    tail = ""
    if kinds == ["replicated"]:
        tail = " last_tile_dim_replicate"
    elif kinds:
        tail = f" last_tile_dims={{{', '.join(kinds)}}}"
    return f"{{devices=[{','.join(map(str, sizes))}]{listed}{tail}{_format_reduction(t)}}}"


def _format_reduction(t: ArrayType) -> str:
    if t.reduction in (None, "sum"):
        return ""
    named = _REDUCTION["op_name"].format(t.reduction.upper())
    return f" metadata={{op_type={_REDUCTION['op_type']} op_name={named}}}"


def _sharding(
    scanner: Scanner,
    mesh: Mesh | None,
    shape: Sequence[int],
    dtype: object,
    num_devices: int | None,
    *,
    closed: bool = False,
) -> ArrayType:
    scanner.expect("{")
    column = scanner.column
    word = scanner.accept(
        "replicated",
        "unreduced",
        "maximal_mesh",
        "maximal",
        "devices",
        "mesh",
        "manual",
        "unknown",
    )
    match word:
        case "replicated" | "unreduced":
            if mesh is None and num_devices is None:
                scanner.fail("devices; this names none, so a mesh or num_devices is given", column)
            t = _everywhere(word, mesh or Mesh(axis_0=num_devices or 1), shape, dtype)
        case "maximal" | "maximal_mesh":
            t = _maximal(scanner, word, mesh, shape, dtype, column)
        case "devices":
            t = _tiled(_tiling(scanner, len(shape)), mesh, shape, dtype, scanner, column)
        case "mesh":
            t = _on_mesh(scanner, mesh, shape, dtype, closed=closed)
        case "manual" | "unknown":
            scanner.fail(f"a layout; {word} does not say what a device holds", column)
        case _:
            scanner.fail("devices=, mesh[, replicated, unreduced or maximal")
    reduction = _trailer(scanner)
    scanner.expect("}")
    return t.replace(reduction=reduction) if reduction and t.partial else t


def _maximal(
    scanner: Scanner,
    word: str,
    mesh: Mesh | None,
    shape: Sequence[int],
    dtype: object,
    column: int,
) -> ArrayType:
    """`maximal device=0` or `maximal_mesh[device_id=0]`: all of the array on one device."""
    for mark in ("[", "device_id", "=") if word == "maximal_mesh" else ("device", "="):
        scanner.expect(mark)
    device = scanner.integer("a device id")
    if word == "maximal_mesh":
        scanner.expect("]")
    mesh = mesh or Mesh(devices=[device])
    if list(mesh.ids) != [device]:
        scanner.fail(f"a mesh of device {device} alone; on others nothing is held", column)
    return ArrayType(mesh, dtype, shape)


def _trailer(scanner: Scanner) -> str | None:
    """What follows a layout, `shard_as 1` and metadata: the reduction, where metadata names one."""
    reduction = None
    while True:
        column = scanner.column
        if word := scanner.accept("shard_as", "shard_like"):
            scanner.fail(f"a layout; {word} ties a sharding to others of its group", column)
        if scanner.ahead(",", "metadata"):  # as v3 has it
            scanner.expect(",")
        if not scanner.accept("metadata"):
            return reduction
        scanner.expect("=")
        scanner.expect("{")
        entries = [_metadata(scanner)]
        if not entries[0] and scanner.accept("{"):
            entries = [_metadata(scanner, "}")]
            while scanner.accept(","):
                scanner.expect("{")
                entries.append(_metadata(scanner, "}"))
        scanner.expect("}")
        for entry in entries:
            if entry.get("op_type") == _REDUCTION["op_type"]:
                reduction = entry.get("op_name", "").strip('"').lower()
                if reduction not in REDUCTIONS:
                    scanner.fail(f"one of {', '.join(REDUCTIONS)} as reduction_op", column)


def _metadata(scanner: Scanner, close: str = "") -> dict[str, str]:
    """`op_type="a" op_name="b"`, in any order, with `close` after it."""
    entry = {}
    while word := scanner.maybe(_WORD):
        scanner.expect("=")
        entry[word[0]] = scanner.take(_VALUE, "a value")
    if close:
        scanner.expect(close)
    return entry


def _everywhere(word: str, mesh: Mesh, shape: Sequence[int], dtype: object) -> ArrayType:
    """The whole array, or one addend of it, on every device."""
    partial = [name for name, _ in mesh.axes] if word == "unreduced" else []
    return ArrayType(mesh, dtype, shape, partial=partial)


def _tiling(scanner: Scanner, rank: int) -> _Tiling:
    """v1 and v2 after the word `devices`."""
    scanner.expect("=")
    column = scanner.column
    sizes = _sizes(scanner)
    if scanner.accept("<="):
        devices = _iota(scanner)
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
    return _Tiling(tuple(sizes), devices, tuple(kinds))


def _tiled(
    tiling: _Tiling,
    mesh: Mesh | None,
    shape: Sequence[int],
    dtype: object,
    scanner: Scanner,
    column: int,
) -> ArrayType:
    """The type of a tiling: each tile dimension as digits of the mesh."""
    if mesh is None:
        named = [(f"axis_{at}", size) for at, size in enumerate(tiling.sizes) if size > 1]
        mesh = Mesh(named, devices=tiling.devices.tolist())
        names = dict(named)
        axes = [[f"axis_{at}"] if f"axis_{at}" in names else [] for at in range(len(tiling.sizes))]
        return _with_kinds(tiling, mesh, shape, dtype, axes)
    position = {device: at for at, device in enumerate(mesh.ids)}
    if sorted(position) != sorted(tiling.devices.tolist()):
        scanner.fail(f"the {mesh.num_devices} devices of the mesh {mesh!r}", column)
    at = np.array([position[device] for device in tiling.devices.tolist()])
    tiling = _sorted_copies(_Tiling(tiling.sizes, at, tiling.kinds))
    found = linear_digits(tiling.devices)
    parts = None if found is None else grouped_digits(found, tiling.sizes)
    if parts is None:
        raise LayoutError(
            f"a tile coordinate is made of digits of the mesh {mesh!r}; "
            f"got {scanner.text}; without a mesh, the tiles themselves make one",
            mesh=mesh,
            text=scanner.text,
        )
    count = mesh.num_devices
    digits = [
        [digit for step, size in part for digit in mesh_digits(mesh, count // (step * size), size)]
        for part in parts
    ]
    return _with_kinds(tiling, mesh, shape, dtype, digits)


def _with_kinds(
    tiling: _Tiling,
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
    return ArrayType(mesh, dtype, shape, parts[:rank], partial)


def _sorted_copies(tiling: _Tiling) -> _Tiling:
    """The same tiling, its copies in ascending order, and its addends in that of their first copy.

    Which of the copies is which does not matter, and XLA too sorts them.
    """
    rank = len(tiling.sizes) - len(tiling.kinds)
    groups = {
        kind: [rank + at for at, other in enumerate(tiling.kinds) if other == kind]
        for kind in ("unreduced", "replicated")
    }
    addends, copies = (prod(tiling.sizes[at] for at in group) for group in groups.values())
    grid = tiling.devices.reshape(tiling.sizes)
    grid = grid.transpose([*range(rank), *groups["unreduced"], *groups["replicated"]])
    grid = np.sort(grid.reshape(-1, addends, copies), axis=2)
    grid = np.take_along_axis(grid, np.argsort(grid[:, :, :1], axis=1), axis=1)
    sizes = (*tiling.sizes[:rank], addends, copies)
    return _Tiling(sizes, grid.reshape(-1), ("unreduced", "replicated"))


def _iota(scanner: Scanner) -> Devices:
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


def _format_iota(devices: Devices) -> str | None:
    """Device ids as a transposed iota, where they are one."""
    digits = (
        linear_digits(devices) if sorted(devices.tolist()) == list(range(devices.size)) else None
    )
    if digits is None:
        return None
    by_step = sorted(range(len(digits)), key=lambda at: -digits[at][0])
    sizes = ",".join(str(digits[at][1]) for at in by_step) or "1"
    order = [by_step.index(at) for at in range(len(digits))]
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


def _on_mesh(
    scanner: Scanner, mesh: Mesh | None, shape: Sequence[int], dtype: object, *, closed: bool
) -> ArrayType:
    """v3 after the word `mesh`."""
    column = scanner.column
    scanner.expect("[")
    axes = scanner.listed(lambda: read_axis_size(scanner), "]")
    scanner.expect(",")
    devices = None
    if scanner.accept("device_ids"):
        scanner.expect("=")
        scanner.expect("(")
        if scanner.text[scanner.column - 1 :].startswith("["):
            devices = _iota(scanner).tolist()
            scanner.expect(")")
        else:
            devices = scanner.listed(bind(scanner.integer, "a device id"), ")")
        scanner.expect(",")
    stated = scanner.legal(lambda: Mesh(axes, devices=devices), column)
    if mesh is not None and mesh != stated:
        scanner.fail(f"the given mesh, {mesh!r}", column)
    if word := scanner.accept("replicated", "unreduced"):
        return _everywhere(word, stated, shape, dtype)
    column = scanner.column
    if scanner.accept("manual"):
        scanner.fail("a layout; manual does not say what a device holds", column)
    dims = read_dims(scanner, stated, len(shape), closed=closed)
    return with_copies(stated, dtype, shape, dims, *read_sets(scanner, stated))


def _format_mesh(t: ArrayType, dims: Sequence[Sequence[DeviceDigit]]) -> str:
    axes = ",".join(f"'{name}'={size}" for name, size in t.mesh.axes)
    devices = ""
    if t.mesh.devices is not None:
        listed = _format_iota(np.array(t.mesh.devices))
        ids = listed.removeprefix("<=") if listed else ",".join(map(str, t.mesh.devices))
        devices = f" device_ids=({ids}),"
    listed_dims = ", ".join(format_refs(digits, t.mesh, "'") for digits in dims)
    partial = format_unreduced(t, "an HLO sharding", "'")
    return f"{{mesh[{axes}],{devices} [{listed_dims}]{partial}}}"
