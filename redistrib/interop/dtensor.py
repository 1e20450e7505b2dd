"""DTensor's layouts: placements, one per mesh dimension, alone or in the specs that torch prints.

[Shard(dim=0), _StridedShard(dim=1, sf=2), Replicate(), Partial(sum)]
S(0)[1]S(0)[0]_S(1, 2)RP(sum)             [1]: second to shard its tensor dimension
Spec(f32[8, 8](S(0)R)), Spec(S(0)R on (8, 8)), DTensorSpec(mesh=..., placements=(...), ...)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from redistrib.interop.placements import Array, format_dtensor, read_placements
from redistrib.interop.words import array_shape
from redistrib.text import Scanner
from redistrib.types import dtypes
from redistrib.types.array_type import ArrayType
from redistrib.types.mesh import MAX_ENUMERATED, Mesh

__all__ = ["format_dtensor", "parse_dtensor"]

_TYPE = re.compile(r"[a-z][a-z0-9]*(?=\s*\[)")
_KEY = re.compile(r"[a-z_]+(?=\s*=)")
_DTYPE = re.compile(r"[a-z]+[0-9]*(_[a-z0-9]+)?")


def parse_dtensor(
    text: str, mesh: Mesh | None, shape: Sequence[int] | None = None, dtype: object = None
) -> ArrayType:
    """The type of a DTensor of a global shape; mesh dimensions are the axes of `mesh`, in order.

    A `Spec(...)` may state the shape and the dtype, a `DTensorSpec(...)` the mesh too: then these
    may be None, and what is given agrees with the text. Mesh dimensions without names are m0, m1.

    >>> mesh = Mesh(dp=2, tp=4)
    >>> str(parse_dtensor("[_StridedShard(dim=0, sf=4), Shard(dim=0)]", mesh, (16,), "f32"))
    'f32[16{tp,dp}]'
    >>> str(parse_dtensor("S(0)[1]S(0)[0]", mesh, (16,), "f32"))
    'f32[16{tp,dp}]'
    >>> str(parse_dtensor("Spec(bf16[16, 8](S(1)R))", mesh))
    'bf16[16, 8{dp}]'

    >>> str(parse_dtensor("[Shard(0), Shard(0)]", mesh, (10,), "f32"))
    'f32[10{dp,tp}:nested]'

    Raises TypeSyntaxError with the column for malformed text, LayoutError for an illegal type, and
    for uneven strided shards that are no cuts one after the other. `Partial(avg)`, `_NormPartial`
    and `_MaskPartial` are no reductions of elements and are refused.
    """
    scanner = Scanner(text)
    sizes = array_shape(() if shape is None else shape, mesh, stated=True)
    array = Array(mesh, None if shape is None else sizes, dtype)
    if scanner.accept("DTensorSpec"):
        t = _long_spec(scanner, array)
    elif scanner.accept("Spec"):
        t = _short_spec(scanner, array)
    else:
        t = read_placements(scanner, array, scanner.offset)
    scanner.end()
    return t


def _short_spec(scanner: Scanner, array: Array) -> ArrayType:
    """`(f32[8, 8](S(0)R))` or `(S(0)R on (8, 8))`, after the word `Spec`."""
    scanner.expect("(")
    column = scanner.column
    if word := scanner.maybe(_TYPE):
        dtype = scanner.legal(lambda: dtypes.dtype_name(word[0]), column)
        scanner.expect("[")
        sizes = scanner.listed(scanner.integer, "]", trailing=True)
        array = array.stated(scanner, column, dtype=dtype, shape=tuple(sizes))
        t = read_placements(scanner, array, scanner.offset)
        scanner.expect(")")
        return t
    # The shape stands after the placements, which are read once it is known.
    start = scanner.offset
    end = scanner.text.find(" on ", start)
    if end < 0:
        scanner.fail("a shape, as in f32[8, 8](S(0)R) or S(0)R on (8, 8)", column)
    scanner.offset = end + len(" on ")
    column = scanner.column
    scanner.expect("(")
    array = array.stated(
        scanner, column, shape=tuple(scanner.listed(scanner.integer, ")", trailing=True))
    )
    scanner.expect(")")
    scanner.end()
    after, scanner.offset = scanner.offset, start
    t = read_placements(scanner, array, start)
    scanner.expect("on")
    scanner.offset = after
    return t


def _long_spec(scanner: Scanner, array: Array) -> ArrayType:
    """What follows the word `DTensorSpec`: a mesh, placements, the tensor, the order of shards."""
    scanner.expect("(")
    scanner.expect("mesh")
    scanner.expect("=")
    column = scanner.column
    sizes, names, ids = _device_mesh(scanner)
    if array.mesh is None:
        named = zip(names or [f"m{dim}" for dim in range(len(sizes))], sizes, strict=True)
        mesh = scanner.legal(lambda: Mesh(list(named), devices=ids), column)
        array = replace(array, mesh=mesh)
    elif [size for _, size in array.mesh.axes] != sizes or (ids and list(array.mesh.ids) != ids):
        scanner.fail(f"the given mesh, {array.mesh!r}", column)
    for mark in (",", "placements", "="):
        scanner.expect(mark)
    start = scanner.offset
    _skip_brackets(scanner)
    orders: dict[int, list[int]] = {}
    while scanner.accept(","):
        column = scanner.column
        match scanner.take(_KEY, "tensor_meta=, shard_order= or ')'"):
            case "tensor_meta":
                scanner.expect("=")
                array = _tensor_meta(scanner, array)
            case "shard_order":
                scanner.expect("=")
                orders = _shard_order(scanner)
            case "use_strided_shard_as_shard_order":
                scanner.expect("=")
                scanner.expect("True", "False")
            case _:
                scanner.fail("tensor_meta=, shard_order= or ')'", column)
    scanner.expect(")")
    after, scanner.offset = scanner.offset, start
    t = read_placements(scanner, array, start, orders)
    scanner.offset = after
    return t


def _device_mesh(scanner: Scanner) -> tuple[list[int], list[str], list[int] | None]:
    """Sizes, names and device ids of a DeviceMesh, as far as its text has them.

    `DeviceMesh('cpu', [[0, 1], [2, 3]], mesh_dim_names=('dp', 'tp'))`, `DeviceMesh:([0, 1])` and
    `DeviceMesh((dp=2, tp=2), 'cpu', stride=(2, 1))`.
    """
    scanner.expect("DeviceMesh")
    scanner.accept(":")
    scanner.expect("(")
    names: list[str] = []
    column = scanner.column
    if scanner.accept("("):
        sizes = []

        def axis() -> None:
            if word := scanner.maybe(re.compile(r"(\w+)\s*=")):
                names.append(word[1])
            sizes.append(scanner.integer("the size of a mesh dimension", 1))

        scanner.listed(axis, ")", trailing=True)
        ids = None
    else:
        if scanner.ahead("'") or scanner.ahead('"'):
            scanner.quoted("a kind of device")
            scanner.expect(",")
        array = np.array(_nested(scanner), dtype=object)
        sizes, ids = list(array.shape), array.ravel().tolist()
        if any(isinstance(device, list) for device in ids):
            scanner.fail("device ids in rows of one length", column)
    while scanner.accept(","):
        if scanner.ahead("'") or scanner.ahead('"'):
            scanner.quoted("a kind of device")
        elif scanner.accept("mesh_dim_names"):
            scanner.expect("=")
            scanner.expect("(")
            names = scanner.listed(scanner.quoted, ")", trailing=True)
        elif scanner.accept("stride"):
            scanner.expect("=")
            scanner.expect("(")
            column = scanner.column
            strides = scanner.listed(scanner.integer, ")", trailing=True)
            if len(strides) != len(sizes) or prod(sizes) > MAX_ENUMERATED:
                scanner.fail(f"{len(sizes)} strides of a mesh that can be listed", column)
            grid = np.indices(sizes).reshape(len(sizes), prod(sizes))
            ids = (np.array(strides, dtype=np.intp) @ grid).tolist()
        else:
            scanner.fail("a kind of device, mesh_dim_names=, stride= or ')'")
    scanner.expect(")")
    if names and len(names) != len(sizes):
        scanner.fail(f"{len(sizes)} names of mesh dimensions", column)
    return sizes, names, ids


def _nested(scanner: Scanner) -> list[Any]:
    """Device ids in nested brackets."""
    scanner.expect("[")
    return scanner.listed(
        lambda: _nested(scanner) if scanner.ahead("[") else scanner.integer("a device id"), "]"
    )


def _tensor_meta(scanner: Scanner, array: Array) -> Array:
    """`TensorMeta(shape=torch.Size([8, 8]), stride=(8, 1), dtype=torch.float32)`, or None."""
    if scanner.accept("None"):
        return array
    for mark in ("TensorMeta", "(", "shape", "="):
        scanner.expect(mark)
    column = scanner.column
    wrapped = scanner.accept("torch.Size")
    if wrapped:
        scanner.expect("(")
    close = {"(": ")", "[": "]"}[scanner.expect("(", "[")]
    shape = tuple(scanner.listed(scanner.integer, close, trailing=True))
    if wrapped:
        scanner.expect(")")
    for mark in (",", "stride", "=", "("):
        scanner.expect(mark)
    scanner.listed(scanner.integer, ")", trailing=True)
    for mark in (",", "dtype", "=", "torch."):
        scanner.expect(mark)
    dtype_column = scanner.column
    word = scanner.take(_DTYPE, "a dtype")
    dtype = scanner.legal(lambda: dtypes.dtype_name(word), dtype_column)
    scanner.expect(")")
    return array.stated(scanner, column, shape=shape, dtype=dtype)


def _shard_order(scanner: Scanner) -> dict[int, list[int]]:
    """Per tensor dimension the mesh dimensions that shard it, first to last.

    `(ShardOrderEntry(tensor_dim=0, mesh_dims=(1, 0)),)`, or None.
    """
    orders: dict[int, list[int]] = {}
    if scanner.accept("None"):
        return orders

    def entry() -> None:
        for mark in ("ShardOrderEntry", "(", "tensor_dim", "="):
            scanner.expect(mark)
        dim = scanner.integer("a tensor dimension")
        for mark in (",", "mesh_dims", "=", "("):
            scanner.expect(mark)
        orders[dim] = scanner.listed(scanner.integer, ")", trailing=True)
        scanner.expect(")")

    scanner.expect("(")
    scanner.listed(entry, ")", trailing=True)
    return orders


def _skip_brackets(scanner: Scanner) -> None:
    """Take what stands between brackets, up to the one that closes."""
    scanner.expect("(", "[")
    depth = 1
    while depth:
        if scanner.at_end():
            scanner.fail("a closing bracket")
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(scanner.text[scanner.offset], 0)
        scanner.offset += 1
