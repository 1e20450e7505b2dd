"""What jax prints: PartitionSpec, NamedSharding, AbstractMesh, and the type of an array (aval).

    P('x', ('y', 'z'), None, unreduced={'w'})           left is major
    NamedSharding(mesh=Mesh('x': 2, 'y': 4), spec=P('x', 'y'))
    float32[8@x,8@(y,z)]{U:w}

Whole axes only, and sums only. A jax mesh prints without its device order, so a NamedSharding is
read on the mesh that is given, or else on devices 0, 1, 2, ... Axes that are `reduced` hold copies,
as the type says without them. A dimension left UNCONSTRAINED has no layout and is an error.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial as bind

from redistrib.errors import LayoutError
from redistrib.interop.words import (
    array_shape,
    check_device_order,
    check_reduction,
    whole_owners,
    whole_partial,
    with_copies,
)
from redistrib.text import AXIS_NAME, Scanner
from redistrib.types import dtypes
from redistrib.types.array_type import ArrayType
from redistrib.types.mesh import Mesh

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_SPEC = "'x', a tuple of axes, None, unreduced={...}, reduced={...} or ')'"


def parse_partition_spec(text: str, mesh: Mesh, shape: Sequence[int], dtype: object) -> ArrayType:
    """The type of an array with a PartitionSpec, `shape` its global shape in elements.

    >>> mesh = Mesh(x=2, y=4)
    >>> str(parse_partition_spec("P(('y', 'x'), None)", mesh, (8, 8), "float32"))
    'f32[8{y,x}, 8]'

    Raises TypeSyntaxError with the column for malformed text, LayoutError for an illegal type.
    """
    scanner = Scanner(text)
    shape = array_shape(shape, mesh)
    dims, partial, copies = _spec(scanner, mesh, len(shape))
    scanner.end()
    return with_copies(mesh, dtype, shape, dims, partial, copies)


def format_partition_spec(t: ArrayType) -> str:
    """The PartitionSpec of a type, an entry for every dimension.

    Raises LayoutError for what a PartitionSpec has no word for.
    """
    entries = [_entry(axes) for axes in whole_owners(t, "a PartitionSpec", ceil=True)]
    check_reduction(t, "a PartitionSpec")
    if t.partial:
        entries.append(f"unreduced={{{_names(whole_partial(t, 'a PartitionSpec'))}}}")
    return f"P({', '.join(entries)})"


def parse_named_sharding(
    text: str, mesh: Mesh | None, shape: Sequence[int], dtype: object
) -> ArrayType:
    """The type of an array with a NamedSharding.

    >>> text = "NamedSharding(mesh=AbstractMesh('x': 2, 'y': 4), spec=P(None, 'y'))"
    >>> str(parse_named_sharding(text, None, (8, 8), "float32"))
    'f32[8, 8{y}]'

    Raises TypeSyntaxError with the column, also where the axes of `mesh` are others; LayoutError.
    """
    scanner = Scanner(text)
    shape = array_shape(shape, mesh, stated=True)
    scanner.expect("NamedSharding")
    scanner.expect("(")
    scanner.expect("mesh")
    scanner.expect("=")
    column = scanner.column
    stated = _mesh(scanner)
    if mesh is not None and mesh.axes != stated.axes:
        scanner.fail(f"the given mesh, {mesh}", column)
    mesh = mesh or stated
    scanner.expect(",")
    scanner.expect("spec")
    scanner.expect("=")
    dims, partial, copies = _spec(scanner, mesh, len(shape))
    while scanner.accept(","):  # memory_kind=device and the like, which say nothing of the layout
        scanner.take(_WORD, "the name of an attribute")
        scanner.expect("=")
        scanner.take(_WORD, "a word")
    scanner.expect(")")
    scanner.end()
    return with_copies(mesh, dtype, shape, dims, partial, copies)


def format_named_sharding(t: ArrayType) -> str:
    """The NamedSharding of a type, as jax prints it. Raises LayoutError where there is none."""
    check_device_order(t, "the text of a NamedSharding")
    mesh = format_abstract_mesh(t.mesh).removeprefix("Abstract")
    return f"NamedSharding(mesh={mesh}, spec={format_partition_spec(t)})"


def parse_abstract_mesh(text: str) -> Mesh:
    """The mesh printed as `AbstractMesh('x': 2, 'y': 4)` or `Mesh(...)`; axis types are ignored.

    >>> str(parse_abstract_mesh("AbstractMesh('x': 2, 'y': 4, axis_types=(Auto, Auto))"))
    'x=2,y=4'

    Raises TypeSyntaxError with the column for malformed text.
    """
    scanner = Scanner(text)
    mesh = _mesh(scanner)
    scanner.end()
    return mesh


def format_abstract_mesh(mesh: Mesh) -> str:
    """The axes of a mesh as an AbstractMesh prints them, of type Auto.

    >>> format_abstract_mesh(Mesh(x=2))
    "AbstractMesh('x': 2, axis_types=(Auto,))"

    Raises LayoutError for a mesh with an order of devices.
    """
    if mesh.devices is not None:
        raise LayoutError(f"an AbstractMesh has no devices; got {mesh!r}", mesh=mesh)
    items = [f"{name!r}: {size}, " for name, size in mesh.axes]
    kinds = ", ".join(["Auto"] * len(items)) + "," * (len(items) == 1)
    return f"AbstractMesh({''.join(items)}axis_types=({kinds}))"


def parse_aval(text: str, mesh: Mesh) -> ArrayType:
    """The type that jax.typeof prints.

    >>> str(parse_aval("float32[8@(y,x),8]{R:z}", Mesh(x=2, y=4, z=2)))
    'f32[8{y,x}, 8]'

    Raises TypeSyntaxError with the column for malformed text, LayoutError for an illegal type.
    """
    scanner = Scanner(text)
    column = scanner.column
    word = scanner.take(_WORD, "a dtype")
    dtype = scanner.legal(lambda: dtypes.dtype_name(word), column)
    scanner.expect("[")
    dims: list[list[str]] = []

    def dimension() -> int:
        size = scanner.integer("the size of a dimension")
        dims.append(_bare_axes(scanner, mesh) if scanner.accept("@") else [])
        return size

    shape = scanner.listed(dimension, "]")
    sets: dict[str, list[str]] = {"U": [], "R": []}
    if scanner.accept("{"):

        def entry() -> None:
            kind = scanner.expect("U", "R")
            scanner.expect(":")
            sets[kind] += _bare_axes(scanner, mesh)

        scanner.listed(entry, "}")
    scanner.end()
    return with_copies(mesh, dtype, shape, dims, sets["U"], sets["R"])


def format_aval(t: ArrayType) -> str:
    """A type as jax.typeof prints it. Raises LayoutError for what that has no word for."""

    def name(axes: Sequence[str]) -> str:
        return axes[0] if len(axes) == 1 else f"({','.join(axes)})"

    dims = [
        f"{n}@{name(axes)}" if axes else str(n)
        for n, axes in zip(t.shape, whole_owners(t, "an aval", ceil=True), strict=True)
    ]
    check_reduction(t, "an aval")
    partial = f"{{U:{name(whole_partial(t, 'an aval'))}}}" if t.partial else ""
    return f"{dtypes.long_name(t.dtype)}[{','.join(dims)}]{partial}"


def _spec(scanner: Scanner, mesh: Mesh, rank: int) -> tuple[list[list[str]], list[str], list[str]]:
    """The axes of each dimension, the unreduced and the reduced ones."""
    scanner.expect("PartitionSpec", "P")
    scanner.expect("(")
    dims: list[list[str]] = []
    sets: dict[str, list[str]] = {"unreduced": [], "reduced": []}
    last = False

    def axis() -> str:
        column = scanner.column
        return scanner.known_axis(scanner.quoted("an axis in quotes"), mesh.sizes, column)

    def entry() -> None:
        nonlocal last
        column = scanner.column
        if keyword := scanner.accept("unreduced", "reduced"):
            last = True
            scanner.expect("=")
            wrapped = scanner.accept("frozenset")
            if wrapped:
                scanner.expect("(")
            scanner.expect("{")
            sets[keyword] += scanner.listed(axis, "}", trailing=True)
            if wrapped:
                scanner.expect(")")
            return
        if len(dims) == rank:
            scanner.fail(f"at most {rank} entries, one per dimension", column)
        if last:
            scanner.fail("')', as entries stand before unreduced and reduced", column)
        if scanner.accept("None"):
            dims.append([])
        elif scanner.accept("("):
            dims.append(scanner.listed(axis, ")", trailing=True))
        elif scanner.text[column - 1 : column] in ("'", '"'):
            dims.append([axis()])
        elif scanner.accept("UNCONSTRAINED", "P.UNCONSTRAINED", "PartitionSpec.UNCONSTRAINED"):
            scanner.fail("a layout; an unconstrained dimension has none", column)
        else:
            scanner.fail(_SPEC)

    scanner.listed(entry, ")", trailing=True)
    return dims + [[]] * (rank - len(dims)), sets["unreduced"], sets["reduced"]


def _mesh(scanner: Scanner) -> Mesh:
    scanner.expect("AbstractMesh", "Mesh")
    scanner.expect("(")
    column = scanner.column
    axes: list[tuple[str, int]] = []
    if scanner.accept("axis_sizes"):  # as repr(mesh) has it, where str(mesh) has 'x': 2
        scanner.expect("=")
        scanner.expect("(")
        size = bind(scanner.integer, "the size of an axis", 1)
        sizes = scanner.listed(size, ")", trailing=True)
        for mark in (",", "axis_names", "=", "("):
            scanner.expect(mark)
        names = scanner.listed(scanner.quoted, ")", trailing=True)
        if len(names) != len(sizes):
            scanner.fail(f"{len(sizes)} names", column)
        axes += zip(names, sizes, strict=True)
        scanner.accept(",")

    def entry() -> None:
        if scanner.accept("axis_types"):
            scanner.expect("=")
            scanner.expect("(")
            kinds = scanner.listed(
                lambda: scanner.expect("Auto", "Explicit", "Manual"), ")", trailing=True
            )
            if len(kinds) != len(axes):
                scanner.fail(f"{len(axes)} axis types", column)
            return
        name = scanner.quoted("an axis in quotes or axis_types=(...)")
        scanner.expect(":")
        axes.append((name, scanner.integer("the size of an axis", 1)))

    scanner.listed(entry, ")")
    return scanner.legal(lambda: Mesh(axes), column)


def _bare_axes(scanner: Scanner, mesh: Mesh) -> list[str]:
    """`x` or `(x,y)`."""

    def axis() -> str:
        column = scanner.column
        return scanner.known_axis(scanner.take(AXIS_NAME, "an axis"), mesh.sizes, column)

    return scanner.listed(axis, ")") if scanner.accept("(") else [axis()]


def _entry(axes: Sequence[str]) -> str:
    if not axes:
        return "None"
    return repr(axes[0]) if len(axes) == 1 else f"({_names(axes)})"


def _names(axes: Sequence[str]) -> str:
    return ", ".join(map(repr, axes))
