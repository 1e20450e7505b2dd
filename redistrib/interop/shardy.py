"""Shardy's text: meshes, and shardings of whole axes and of parts of them.

    <["x"=2, "y"=4], device_ids=[...]>
    #sdy.sharding<@mesh, [{"x"}, {"y":(2)2}], replicated={"y":(1)2}, unreduced={"z"}>
    #sdy.sharding<@mesh, [{"x"}, {}], unreduced=max{"y"}>

A part of an axis is written `"y":(pre)size`. A list of dimensions is major to minor. An *open*
dimension, `{"x", ?}`, is a pattern rather than a layout: it is an error unless `closed` says to
take it as it stands. Priorities `{"x"}p1` steer propagation and say nothing of the layout.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from redistrib.errors import LayoutError
from redistrib.interop.words import array_shape, check_reduction, owners, with_copies
from redistrib.text import Scanner, brief
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit
from redistrib.types.mesh import Mesh

_SYMBOL = re.compile(r"@[A-Za-z_][A-Za-z0-9_.$]*")
_PRIORITY = re.compile(r"p[0-9]+")
_WORD = re.compile(r"[a-z]+")
REDUCTIONS = ("sum", "max", "min")
"""The reductions that Shardy and HLO have words for."""


def parse_sdy_mesh(text: str) -> Mesh:
    """The mesh in `<["x"=2, "y"=4]>`, with or without `sdy.mesh @name =` or `mesh` before it.

    >>> parse_sdy_mesh('sdy.mesh @mesh = <["x"=2], device_ids=[1, 0]>')
    Mesh({'x': 2}, devices=[1, 0])

    Raises TypeSyntaxError with the column for malformed text.
    """
    scanner = Scanner(text)
    if scanner.accept("sdy.mesh"):
        scanner.take(_SYMBOL, "the symbol of a mesh")
        scanner.expect("=")
    scanner.accept("mesh", "#sdy.mesh")
    mesh = read_mesh(scanner)
    scanner.end()
    return mesh


def format_sdy_mesh(mesh: Mesh) -> str:
    """A mesh as Shardy writes it.

    >>> format_sdy_mesh(Mesh(x=2, y=4))
    '<["x"=2, "y"=4]>'
    """
    axes = ", ".join(f'"{name}"={size}' for name, size in mesh.axes)
    devices = "" if mesh.devices is None else f", device_ids={list(mesh.devices)}"
    return f"<[{axes}]{devices}>"


Meshes = Mesh | Mapping[str, Mesh] | None
"""The mesh of a sharding, meshes by their symbols, or none where the text has it inline."""


def parse_sdy(
    text: str, mesh: Meshes, shape: Sequence[int], dtype: object, *, closed: bool = False
) -> ArrayType:
    """The type of a tensor with a sharding; `mesh` may be None where the text has it inline.

    >>> text = '#sdy.sharding<@mesh, [{"y":(1)2}, {"x"}]>'
    >>> str(parse_sdy(text, Mesh(x=2, y=4), (8, 8), "float32"))
    'f32[8{y:(1)2}, 8{x}]'

    `closed` takes open dimensions as they stand; `mesh` may also give meshes by their symbols, as
    in `{"mesh": Mesh(x=2)}`. Raises TypeSyntaxError with the column for malformed text, also where
    an inline mesh is not `mesh`; LayoutError for an illegal type.
    """
    scanner = Scanner(text)
    scanner.accept("#sdy.sharding")
    t = read_sharding(scanner, mesh, shape, dtype, closed=closed)
    scanner.end()
    return t


def parse_sdy_list(
    text: str,
    mesh: Meshes,
    shapes: Sequence[Sequence[int]],
    dtypes: Sequence[object],
    *,
    closed: bool = False,
) -> list[ArrayType]:
    """The types of several tensors with a list of shardings, one for each.

    >>> text = '#sdy.sharding_per_value<[<@mesh, [{"x"}]>, <@mesh, [{}]>]>'
    >>> [str(t) for t in parse_sdy_list(text, Mesh(x=2), [(8,), (4,)], ["f32", "f32"])]
    ['f32[8{x}]', 'f32[4]']

    Raises as `parse_sdy`, and TypeSyntaxError unless there is one sharding per tensor.
    """
    scanner = Scanner(text)
    types = read_shardings(scanner, mesh, list(zip(shapes, dtypes, strict=True)), closed=closed)
    scanner.end()
    return types


def read_shardings(
    scanner: Scanner,
    mesh: Meshes,
    tensors: Sequence[tuple[Sequence[int], object]],
    *,
    closed: bool = False,
) -> list[ArrayType]:
    """A list of shardings, `[<...>, <...>]` or `#sdy.sharding_per_value<[...]>`."""
    wrapped = scanner.accept("#sdy.sharding_per_value")
    if wrapped:
        scanner.expect("<")
    column = scanner.column
    scanner.expect("[")
    pending = iter(tensors)

    def sharding() -> ArrayType:
        tensor = next(pending, None)
        if tensor is None:
            scanner.fail(f"']' after {len(tensors)} shardings, one per tensor")
        scanner.accept("#sdy.sharding")
        return read_sharding(scanner, mesh, *tensor, closed=closed)

    types = scanner.listed(sharding, "]")
    if len(types) != len(tensors):
        scanner.fail(f"{len(tensors)} shardings, one per tensor", column)
    if wrapped:
        scanner.expect(">")
    return types


def read_sharding(
    scanner: Scanner,
    mesh: Meshes,
    shape: Sequence[int],
    dtype: object,
    *,
    closed: bool = False,
) -> ArrayType:
    """`<@mesh, [...], ...>`, of a tensor."""
    sizes = array_shape(shape, None, stated=True)
    scanner.expect("<")
    mesh = _named_mesh(scanner, mesh)
    scanner.expect(",")
    if not mesh.axes and scanner.ahead("[", "]"):  # on one device, whatever the rank
        scanner.expect("[")
        scanner.expect("]")
        dims: list[list[DeviceDigit]] = [[] for _ in sizes]
    else:
        dims = read_dims(scanner, mesh, len(sizes), closed=closed)
    sets = read_sets(scanner, mesh)
    scanner.expect(">")
    return with_copies(mesh, dtype, sizes, dims, *sets)


def _named_mesh(scanner: Scanner, meshes: Meshes) -> Mesh:
    """The mesh of a sharding: inline, by its symbol, or the one that is given."""
    column = scanner.column
    if scanner.accept("mesh"):
        inline = read_mesh(scanner)
        if isinstance(meshes, Mesh) and meshes != inline:
            scanner.fail(f"the given mesh, {meshes!r}", column)
        return inline
    symbol = scanner.maybe(_SYMBOL)
    if symbol is None:
        scanner.fail("@NAME or mesh<...>")
    match meshes:
        case Mesh():
            return meshes
        case Mapping():
            mesh = meshes.get(symbol[0][1:])
            if isinstance(mesh, Mesh):
                return mesh
            scanner.fail(f"one of the meshes {', '.join(map(str, meshes)) or '(none)'}", column)
        case None:
            scanner.fail("an inline mesh, as no mesh is given", column)
    raise LayoutError(f"a sharding is on a Mesh; got {brief(meshes)}", mesh=meshes)


def format_sdy(t: ArrayType) -> str:
    """The sharding of a type on the mesh called @mesh, its dimensions closed.

    Raises LayoutError for what Shardy has no word for.
    """
    dims = ", ".join(format_refs(digits, t.mesh) for digits in owners(t, "Shardy", ceil=True))
    return f"#sdy.sharding<@mesh, [{dims}]{format_unreduced(t, 'Shardy')}>"


def format_unreduced(t: ArrayType, notation: str, quote: str = '"') -> str:
    """The partial set of a type with its reduction, a sum where none is stated; empty for none.

    >>> mesh = Mesh(x=2, y=4)
    >>> format_unreduced(ArrayType(mesh, "f32", (8,), partial=["y"], reduction="max"), "Shardy")
    ', unreduced=max{"y"}'
    """
    check_reduction(t, notation, *REDUCTIONS)
    if not t.partial:
        return ""
    reduction = "" if t.reduction == "sum" else t.reduction
    return f", unreduced={reduction}{format_refs(t.partial, t.mesh, quote)}"


def format_refs(digits: Iterable[DeviceDigit], mesh: Mesh, quote: str = '"') -> str:
    """A list of axes and parts of them.

    >>> format_refs([DeviceDigit("x", 1, 2), DeviceDigit("y", 2, 2)], Mesh(x=2, y=4))
    '{"x", "y":(2)2}'
    """
    refs = (
        f"{quote}{d.axis}{quote}"
        + (f":({d.pre}){d.size}" if d.size != mesh.axis_size(d.axis) else "")
        for d in digits
    )
    return f"{{{', '.join(refs)}}}"


def read_dims(
    scanner: Scanner, mesh: Mesh, rank: int, *, closed: bool = False
) -> list[list[DeviceDigit]]:
    """The bracketed list of one list of axes per dimension."""
    column = scanner.column
    scanner.expect("[")

    def dimension() -> list[DeviceDigit]:
        axes = _refs(scanner, mesh, closed=closed)
        scanner.maybe(_PRIORITY)
        return axes

    dims = scanner.listed(dimension, "]")
    if len(dims) != rank:
        scanner.fail(f"{rank} lists of axes, one per dimension", column)
    return dims


def read_sets(scanner: Scanner, mesh: Mesh) -> tuple[list[DeviceDigit], list[DeviceDigit], str]:
    """The `unreduced` and the `replicated` axes as far as they follow, and the reduction."""
    sets: dict[str, list[DeviceDigit]] = {"unreduced": [], "replicated": []}
    reduction = "sum"
    while not scanner.ahead(",", "metadata") and scanner.accept(","):
        column = scanner.column
        kind = scanner.expect("replicated", "unreduced", "manual")
        if kind == "manual":
            scanner.fail("a layout; manual does not say what a device holds", column)
        scanner.expect("=")
        if kind == "unreduced" and (word := scanner.maybe(_WORD)):
            if word[0] not in REDUCTIONS:
                scanner.fail(f"'{{', or one of {', '.join(REDUCTIONS)}", word.start() + 1)
            reduction = word[0]
        sets[kind] += _refs(scanner, mesh)
    return sets["unreduced"], sets["replicated"], reduction


def read_axis_size(scanner: Scanner) -> tuple[str, int]:
    """`"x"=2`."""
    name = scanner.quoted("an axis in quotes")
    scanner.expect("=")
    return name, scanner.integer("the size of an axis", 1)


def read_mesh(scanner: Scanner) -> Mesh:
    """`<["x"=2, "y"=4], device_ids=[...]>`."""
    scanner.expect("<")
    column = scanner.column
    scanner.expect("[")
    axes = scanner.listed(lambda: read_axis_size(scanner), "]")
    devices = None
    if scanner.accept(","):
        scanner.expect("device_ids")
        scanner.expect("=")
        scanner.expect("[")
        devices = scanner.listed(lambda: scanner.integer("a device id"), "]")
    scanner.expect(">")
    return scanner.legal(lambda: Mesh(axes, devices=devices), column)


def _refs(scanner: Scanner, mesh: Mesh, *, closed: bool = False) -> list[DeviceDigit]:
    """Axes and parts of them up to and including '}', and `?` where dimensions may be open."""
    scanner.expect("{")
    digits: list[DeviceDigit] = []

    def ref() -> None:
        column = scanner.column
        if scanner.accept("?"):
            if not closed:
                scanner.fail("a closed dimension; an open one is a pattern, not a layout", column)
            return
        name = scanner.known_axis(scanner.quoted("an axis in quotes or '}'"), mesh.sizes, column)
        size = mesh.axis_size(name)
        if not scanner.accept(":"):
            digits.append(DeviceDigit(name, 1, size))
            return
        scanner.expect("(")
        pre = scanner.integer("the size before a part of an axis", 1)
        scanner.expect(")")
        part = DeviceDigit(name, pre, scanner.integer("the size of a part of an axis", 1))
        if size % part.end:
            scanner.fail(f"a part of {name!r}, whose bounds divide its size {size}", column)
        digits.append(part)

    scanner.listed(ref, "}")
    return digits
