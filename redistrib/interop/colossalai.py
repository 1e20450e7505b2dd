"""ColossalAI's sharding sequence: `[R, S0, S12]`.

Per dimension R for a copy, or S and the numbers of the mesh axes that shard it, major to minor,
one digit each.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from redistrib.interop.words import array_shape, check_complete, no_word, whole_owners
from redistrib.text import Scanner
from redistrib.types.array_type import ArrayType
from redistrib.types.mesh import Mesh

_SHARDED = re.compile(r"S([0-9]+)")


def parse_colossalai(text: str, mesh: Mesh, shape: Sequence[int], dtype: object) -> ArrayType:
    """The type of an array of a global shape with a sharding sequence.

    >>> str(parse_colossalai("[R, S10]", Mesh(x=2, y=4), (8, 8), "float32"))
    'f32[8, 8{y,x}]'

    Raises TypeSyntaxError with the column for malformed text, LayoutError for an illegal type.
    """
    scanner = Scanner(text)
    shape = array_shape(shape, mesh)
    names = [name for name, _ in mesh.axes]

    def dimension() -> list[str]:
        column = scanner.column
        if scanner.accept("R"):
            return []
        match = scanner.maybe(_SHARDED)
        if match is None:
            scanner.fail("R, or S with numbers of mesh axes")
        numbers = [int(digit) for digit in match[1]]
        if max(numbers) >= len(names):
            scanner.fail(f"axes of the mesh, 0 to {len(names) - 1}", column)
        return [names[number] for number in numbers]

    column = scanner.column
    scanner.expect("[")
    dims = scanner.listed(dimension, "]")
    if len(dims) != len(shape):
        scanner.fail(f"{len(shape)} entries, one per dimension", column)
    scanner.end()
    return ArrayType(mesh, dtype, shape, dims)


def format_colossalai(t: ArrayType) -> str:
    """The sharding sequence of a type. Raises LayoutError for what it has no word for."""
    check_complete(t, "a sharding sequence")
    number = {name: index for index, (name, _) in enumerate(t.mesh.axes)}
    words = []
    for axes in whole_owners(t, "a sharding sequence"):
        numbers = [number[axis] for axis in axes]
        if max(numbers, default=0) > 9:
            raise no_word("a sharding sequence", "a mesh axis after the tenth", t)
        words.append(f"S{''.join(map(str, numbers))}" if numbers else "R")
    return f"[{', '.join(words)}]"
