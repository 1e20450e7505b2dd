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
from functools import partial as bind
from math import prod

import numpy as np

from redistrib.interop.hlo_tilings import format_iota, read_iota, read_tiling, tiled
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

_WORD = re.compile(r"[a-z_]+")
_VALUE = re.compile(r'"(?:[^"\\]|\\.)*"|[\w.\-]+')
# Versions 1 and 2 have no word for a reduction: Shardy's export says it in the metadata.
_REDUCTION = {"op_type": '"sdy::reduction_op"', "op_name": '"{}"'}


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

    types = scanner.listed(element, "}")
    if len(types) != len(shapes):
        scanner.fail(f"{len(shapes)} shardings, one per array", column)
    scanner.end()
    return types


def format_hlo(t: ArrayType, version: int = 2) -> str:
    """The sharding of a type in the form of version 1, 2 (a list where no iota serves) or 3.

    >>> t = ArrayType(Mesh(x=2, y=4), "f32", (8, 8), [("y",), ()])
    >>> print(*(format_hlo(t, version) for version in (1, 2, 3)), sep=chr(10))
    {devices=[4,1,2]0,4,1,5,2,6,3,7 last_tile_dim_replicate}
    {devices=[4,1,2]<=[2,4]T(1,0) last_tile_dim_replicate}
    {mesh['x'=2,'y'=4], [{'y'}, {}]}

    Raises LayoutError for what HLO has no word for.
    """
    dims = owners(t, "an HLO sharding", ceil=True)
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
    listed = None if version == 1 else format_iota(devices)
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
            t = tiled(read_tiling(scanner, len(shape)), mesh, shape, dtype, scanner, column)
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
            devices = read_iota(scanner).tolist()
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
        listed = format_iota(np.array(t.mesh.devices))
        ids = listed.removeprefix("<=") if listed else ",".join(map(str, t.mesh.devices))
        devices = f" device_ids=({ids}),"
    listed_dims = ", ".join(format_refs(digits, t.mesh, "'") for digits in dims)
    partial = format_unreduced(t, "an HLO sharding", "'")
    return f"{{mesh[{axes}],{devices} [{listed_dims}]{partial}}}"
