"""ScaLAPACK's descriptor of a block-cyclic matrix.

    [1, ctxt, M, N, MB, NB, RSRC, CSRC, LLD]

M x N elements in blocks of MB x NB, dealt out in turn to a P x Q process grid, which is the mesh:
its first axis is the P process rows. Along a dimension that is M / (MB P) cycles, then the axis,
then the block: `M{_c,p}`. RSRC and CSRC name the process that has the first block: the type is then
on a mesh of the same axes whose devices are turned, so that position 0 is that process.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from redistrib.interop.words import array_shape, check_complete, no_word
from redistrib.text import Scanner
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, Factor, Local
from redistrib.types.mesh import Mesh
from redistrib.types.uneven import CEIL, Ceil, padded_size

_FIELDS = ("dtype 1", "a context", "M", "N", "MB", "NB", "RSRC", "CSRC", "LLD")


def parse_scalapack(text: str, mesh: Mesh, shape: Sequence[int] | None, dtype: object) -> ArrayType:
    """The type of a matrix with a descriptor, on a mesh of two axes.

    >>> str(parse_scalapack("[1, 0, 16, 8, 2, 4, 0, 0, 8]", Mesh(p=2, q=2), None, "float64"))
    'f64[16{_4,p}, 8{q}]'
    >>> str(parse_scalapack("[1, 0, 1000, 8, 64, 4, 0, 0, 256]", Mesh(p=4, q=2), None, "float64"))
    'f64[1000{_4,p,_64}:ceil, 8{q}]'
    >>> t = parse_scalapack("[1, 0, 8, 8, 4, 4, 1, 0, 4]", Mesh(p=2, q=2), None, "float64")
    >>> str(t), t.mesh.ids
    ('f64[8{p}, 8{q}]', (2, 3, 0, 1))

    Raises TypeSyntaxError with the column for malformed text, and for fields that contradict the
    mesh or a given shape.
    """
    scanner = Scanner(text)
    shape = None if shape is None else array_shape(shape, mesh)
    if len(mesh.axes) != 2:
        scanner.fail(f"a mesh of two axes, process rows and columns; given {mesh}", 1)
    scanner.expect("[")
    columns: list[int] = []

    def field() -> int:
        if len(columns) == len(_FIELDS):
            scanner.fail("']' after nine fields")
        columns.append(scanner.column)
        name = _FIELDS[len(columns) - 1]
        return scanner.integer(name, int(name in ("MB", "NB", "LLD")))

    fields = scanner.listed(field, "]")
    scanner.end()
    if len(fields) != len(_FIELDS):
        scanner.fail(f"nine fields, {', '.join(_FIELDS)}", len(text.rstrip()))
    if fields[0] != 1:
        scanner.fail("1, the kind of a dense matrix", columns[0])
    sizes = fields[2:4]
    dims: list[list[Factor]] = []
    for dim, (name, count) in enumerate(mesh.axes):
        n, block, first = (fields[index + dim] for index in (2, 4, 6))
        if shape is not None and (len(shape) != 2 or n != shape[dim]):
            scanner.fail(f"the given shape, {list(shape)}", columns[2 + dim])
        if first >= count:
            scanner.fail(f"a process of {name}, 0 to {count - 1}", columns[6 + dim])
        cycles = max(-(-n // (block * count)), 1)
        dims.append([Local(cycles), DeviceDigit(name, 1, count), Local(block)])
    t = ArrayType(_turned(mesh, *fields[6:8]), dtype, sizes, dims, uneven={0: CEIL, 1: CEIL})
    columns_of, rows_of = mesh.axes[1][1], mesh.axes[0][1]
    rows = min(t.tile_shape_at(row * columns_of)[0] for row in range(rows_of))
    if fields[8] < rows:
        scanner.fail(f"at least {rows}, the local rows", columns[8])
    return t


def _turned(mesh: Mesh, row: int, column: int) -> Mesh:
    """The mesh whose position 0 is at this row and column of another."""
    if not (row or column):
        return mesh
    grid = np.reshape(mesh.ids, [size for _, size in mesh.axes])
    return Mesh(mesh.axes, devices=np.roll(grid, (-row, -column), (0, 1)).ravel().tolist())


def format_scalapack(t: ArrayType) -> str:
    """The descriptor of a type, for context 0 and the grid of its mesh, so RSRC and CSRC are 0.

    Raises LayoutError where it is not block-cyclic.
    """
    notation = "a ScaLAPACK descriptor"
    check_complete(t, notation)
    if len(t.mesh.axes) != 2 or len(t.shape) != 2:
        raise no_word(notation, "other than a matrix on a mesh of two axes", t)
    blocks = []
    for dim, (n, (name, count)) in enumerate(zip(t.shape, t.mesh.axes, strict=True)):
        factors, size = t.dims[dim], n
        if (rule := dict(t.uneven).get(dim)) is not None:
            size = padded_size(n, factors)
            factors = factors[:-1] if isinstance(factors[-1], Local) else factors
        match factors:
            case _ if not (rule is None or isinstance(rule, Ceil)):
                raise no_word(notation, f"uneven blocks under the rule {rule}", t)
            case (DeviceDigit(axis, _, owners),) if axis == name and owners == count:
                cycles = 1
            case (Local(cycles), DeviceDigit(axis, _, owners)) if (axis, owners) == (name, count):
                pass
            case () if count == 1 or not n:
                cycles = 1
            case _:
                raise no_word(notation, f"a dimension {n} that is not cyclic over {name}", t)
        blocks.append(max(size // (cycles * count), 1))
    rows = max(t.tile_shape[0], 1)
    return f"[1, 0, {t.shape[0]}, {t.shape[1]}, {blocks[0]}, {blocks[1]}, 0, 0, {rows}]"
