"""Alpa's ShardingSpec, as Python or as it prints itself.

    ShardingSpec([Chunked([2]), NoSharding()], [ShardedAxis(0), Replicated(4)])

The first list says into how many chunks each dimension is cut, major to minor; the second maps the
row-major positions of the device mesh, major to minor, to these chunks, numbered over all
dimensions, or to copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial as bind
from itertools import accumulate

from redistrib.interop.mesh_parts import split_sizes
from redistrib.interop.words import array_shape, check_complete, owners
from redistrib.text import Scanner
from redistrib.types.array_type import ArrayType
from redistrib.types.mesh import Mesh

_CLOSE = {"[": "]", "(": ")"}


def parse_alpa(text: str, mesh: Mesh, shape: Sequence[int], dtype: object) -> ArrayType:
    """The type of an array of a global shape with a ShardingSpec.

    >>> text = "ShardingSpec([Chunked([2]), NoSharding()], [ShardedAxis(0), Replicated(4)])"
    >>> str(parse_alpa(text, Mesh(x=2, y=4), (8, 8), "float32"))
    'f32[8{x}, 8]'

    Raises TypeSyntaxError with the column for malformed text, LayoutError where the chunks are not
    digits of the mesh or do not divide the shape.
    """
    scanner = Scanner(text)
    shape = array_shape(shape, mesh)
    scanner.expect("ShardingSpec")
    scanner.expect("(")
    scanner.accept("sharding=")
    column = scanner.column
    chunks = scanner.listed(bind(_chunks, scanner), _CLOSE[scanner.expect("[", "(")], trailing=True)
    if len(chunks) != len(shape):
        scanner.fail(f"{len(shape)} dimensions", column)
    scanner.expect(",")
    scanner.accept("mesh_mapping=")
    sizes = [size for dim in chunks for size in dim]
    column = scanner.column
    mapping = scanner.listed(
        lambda: _mapped(scanner, sizes), _CLOSE[scanner.expect("[", "(")], trailing=True
    )
    used = sorted(chunk for chunk, _ in mapping if chunk is not None)
    if used != list(range(len(sizes))):
        scanner.fail(f"each of the {len(sizes)} chunks once as ShardedAxis", column)
    scanner.expect(")")
    scanner.end()
    parts = scanner.legal(lambda: split_sizes(mesh, [size for _, size in mapping]), column)
    owner = {chunk: digits for (chunk, _), digits in zip(mapping, parts, strict=True)}
    starts = [0, *accumulate(len(dim) for dim in chunks)]
    dims = [
        [digit for chunk in range(start, start + len(dim)) for digit in owner[chunk]]
        for start, dim in zip(starts, chunks, strict=False)
    ]
    return ArrayType(mesh, dtype, shape, dims)


def format_alpa(t: ArrayType) -> str:
    """The ShardingSpec of a type. Raises LayoutError for what it has no word for."""
    check_complete(t, "a ShardingSpec")
    dims = owners(t, "a ShardingSpec")
    chunks = {digit: number for number, digit in enumerate(d for digits in dims for d in digits)}
    order = list(t.mesh.sizes)
    parts = sorted([*chunks, *t.free_digits], key=lambda d: (order.index(d.axis), d.pre))
    mapping = [
        f"ShardedAxis({chunks[d]})" if d in chunks else f"Replicated({d.size})" for d in parts
    ]
    sharding = [
        f"Chunked([{', '.join(str(d.size) for d in digits)}])" if digits else "NoSharding()"
        for digits in dims
    ]
    return f"ShardingSpec([{', '.join(sharding)}], [{', '.join(mapping)}])"


def _chunks(scanner: Scanner) -> list[int]:
    """Into how many chunks a dimension is cut, major to minor."""
    word = scanner.expect("NoSharding", "Chunked", "Unstacked")
    scanner.expect("(")
    scanner.accept("chunks=")
    if word == "NoSharding":
        scanner.expect(")")
        return []
    size = bind(scanner.integer, "a number of chunks", 1)
    if word == "Unstacked":
        scanner.fail("Chunked; Unstacked takes the dimension away, which has no type here")
    bracket = scanner.accept("[", "(")
    sizes = scanner.listed(size, _CLOSE[bracket], trailing=True) if bracket else [size()]
    scanner.expect(")")
    return sizes


def _mapped(scanner: Scanner, sizes: Sequence[int]) -> tuple[int | None, int]:
    """The chunk that a part of the mesh holds, None for copies, and the size of that part."""
    word = scanner.expect("ShardedAxis", "Replicated")
    scanner.expect("(")
    scanner.accept("axis=", "replicas=")
    column = scanner.column
    if word == "Replicated":
        mapped: tuple[int | None, int] = None, scanner.integer("a number of copies", 1)
    else:
        chunk = scanner.integer("the number of a chunk")
        if chunk >= len(sizes):
            scanner.fail(f"the number of one of the {len(sizes)} chunks, from 0", column)
        mapped = chunk, sizes[chunk]
    scanner.expect(")")
    return mapped
