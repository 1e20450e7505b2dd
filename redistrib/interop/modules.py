"""Whole modules of MLIR: the meshes they declare, and every sharding in them as a type.

    sdy.mesh @mesh = <["x"=2, "y"=4]>
    func.func @main(%arg0: tensor<8x8xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>})
        -> (tensor<8x8xf32> {mhlo.sharding = "{devices=[2,4]<=[8]}"}) {
      %0 = stablehlo.negate %arg0 {sdy.sharding = #sdy.sharding_per_value<[<@mesh, [{}, {"y"}]>]>}
        : tensor<8x8xf32>

A sharding stands behind the tensor that has it (arguments and results of functions), or before the
types of the operation that it is on. Of Shardy's the mesh is named; HLO's of versions 1 and 2 are
read on the only mesh of the module, or else on the axes of their own tiles.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from redistrib.errors import LayoutError
from redistrib.interop.hlo import parse_hlo
from redistrib.interop.programs.mlir import Tensor, read_tensors
from redistrib.interop.shardy import read_mesh, read_sharding, read_shardings
from redistrib.text import Scanner
from redistrib.types.array_type import ArrayType
from redistrib.types.mesh import Mesh

_MESH = re.compile(r"sdy\.mesh\s+@([\w.$]+)\s*=\s*(?=<)")
_FUNCTION = re.compile(r"func\.func\s+(?:public\s+|private\s+)?@([\w.$]+)")
_SHARDING = re.compile(
    r"#sdy\.sharding_per_value(?=<\[)|#sdy\.sharding(?=<)|mhlo\.sharding\s*=\s*\"(?=\{)"
    r"|(?:in|out)_shardings=(?=\[)|out_sharding=(?=<)"
    r"|sdy\.(?:sharding_constraint|reshard)\s+%[\w#]+\s+(?=<)"
)


@dataclass(frozen=True, slots=True)
class Module:
    """The meshes of a module by their symbols, and its shardings in the order of the text.

    A sharding has the name of its value, `%arg0` or `%0`, or of the result that it is on, `@main`.
    """

    meshes: Mapping[str, Mesh]
    shardings: tuple[tuple[str, ArrayType], ...]


def parse_module(text: str, *, closed: bool = False) -> Module:
    """The meshes and shardings of a module in the dialects sdy, StableHLO and MHLO.

    >>> text = '''
    ... sdy.mesh @mesh = <["x"=2, "y"=4]>
    ... func.func @main(%arg0: tensor<8x8xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>})
    ... '''
    >>> module = parse_module(text)
    >>> str(module.meshes["mesh"]), [(value, str(t)) for value, t in module.shardings]
    ('x=2,y=4', [('%arg0', 'f32[8{x}, 8]')])

    `closed` takes open dimensions as they stand. Raises TypeSyntaxError with the column, counted
    from the beginning of the text, LayoutError for an illegal type.
    """
    meshes: dict[str, Mesh] = {}
    scanner = Scanner(text)
    for match in _MESH.finditer(text):
        scanner.offset = match.end()
        meshes[match[1]] = read_mesh(scanner)
    shardings = tuple(_shardings(scanner, meshes, closed))
    return Module(MappingProxyType(meshes), shardings)


def _shardings(
    scanner: Scanner, meshes: Mapping[str, Mesh], closed: bool
) -> Iterator[tuple[str, ArrayType]]:
    text = scanner.text
    for match in _SHARDING.finditer(text):
        word = match[0]
        value, tensors = _place(scanner, match)
        if word.startswith("mhlo"):
            end = text.find('"', match.end())
            only = next(iter(meshes.values())) if len(meshes) == 1 else None
            shape, dtype = tensors[0]
            sharding = text[match.end() : end if end >= 0 else None]
            yield value, _hlo(sharding, only, shape, dtype, closed=closed)
        elif text[match.end()] == "[" or "per_value" in word:
            scanner.offset = match.start() if "per_value" in word else match.end()
            for t in read_shardings(scanner, meshes, tensors, closed=closed):
                yield value, t
        else:
            scanner.offset = match.end()
            yield value, read_sharding(scanner, meshes, *tensors[0], closed=closed)


def _hlo(
    text: str, mesh: Mesh | None, shape: tuple[int, ...], dtype: str, *, closed: bool
) -> ArrayType:
    """The type of an HLO sharding on a mesh, or where its tiles are none of it, on their own."""
    try:
        return parse_hlo(text, mesh, shape, dtype, closed=closed)
    except LayoutError:
        if mesh is None or not text.startswith("{devices="):
            raise
    return parse_hlo(text, None, shape, dtype, closed=closed)


def _place(scanner: Scanner, match: re.Match[str]) -> tuple[str, list[Tensor]]:
    """The value that a sharding is on, and the tensors that it describes."""
    text = scanner.text
    start = text.rfind("\n", 0, match.start()) + 1
    # Behind a tensor, in the attributes of an argument or a result: `%arg0: tensor<8xf32> {...`
    brace = _open_brace(text, match.start(), start)
    before = text[:brace].rstrip() if brace is not None else ""
    behind = re.search(r"(?:(%[\w#]+)\s*:\s*)?(tensor<(?:[^<>]|<[^<>]*>)*>)$", before)
    if behind is not None:
        return behind[1] or _function(text, match.start()), read_tensors(behind[2])
    # Before the types of an operation, `%0 = ... : (tensor<8xf32>) -> tensor<4xf32>`; those of an
    # operation with a region stand behind it, on the line that closes it.
    value = re.match(r"\s*(%[\w#]+)(?::\d+)?\s*=", text[start:])
    name = value[1] if value else _function(text, match.start())
    end = _line_of_types(text, start, match.end())
    types = text[match.end() : end]
    into, _, result = types.rpartition(" : ")[2].rpartition("->")
    tensors = read_tensors(into if match[0].startswith("in_") and into else result)
    if not tensors:
        scanner.fail("a sharding before or behind the types of its tensors", match.start() + 1)
    if "per_value" not in match[0] and not match[0].endswith("shardings="):
        tensors = tensors[-1:]
    return name, tensors


def _open_brace(text: str, index: int, start: int) -> int | None:
    """The index of the brace that opens the attributes around `index`, from `start` on, or None."""
    depth = 0
    for place in range(index - 1, start - 1, -1):
        depth += {"}": 1, "{": -1}.get(text[place], 0)
        if depth < 0:
            return place
    return None


def _line_of_types(text: str, start: int, index: int) -> int:
    """The end of the line that has the types of the operation that begins at `start`."""
    end = text.find("\n", index)
    end = len(text) if end < 0 else end
    if " : " in text[index:end] or not text[index:end].rstrip().endswith("{"):
        nearest = text.find("\n", end + 1)
        following = text[end + 1 : nearest if nearest >= 0 else None]
        if " : " not in text[index:end] and following.lstrip().startswith(":"):
            return len(text) if nearest < 0 else nearest
        return end
    indent = re.match(r"\s*", text[start:])
    close = re.compile(rf"\n{indent[0] if indent else ''}\}}.*").search(text, end)
    return close.end() if close else end


def _function(text: str, index: int) -> str:
    """The name of the function around an index of the text."""
    names = [match[1] for match in _FUNCTION.finditer(text, 0, index)]
    return f"@{names[-1]}" if names else "@"
