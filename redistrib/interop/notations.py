"""All notations by name, and a reader that tells from a text which one it is in.

>>> mesh = Mesh(x=2, y=4)
>>> for text in ("f32[8{y}, 8]", "float32[8@y,8]"):
...     print(read_any(text, mesh))
f32[8{y}, 8]
f32[8{y}, 8]
>>> for text in ("P('y')", "{devices=[4,1,2]<=[2,4]T(1,0) last_tile_dim_replicate}", "[R, S(0)]"):
...     print(read_any(text, mesh, (8, 8), "f32"))
f32[8{y}, 8]
f32[8{y}, 8]
f32[8{y}, 8]
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from redistrib.errors import LayoutError
from redistrib.interop import alpa, colossalai, dtensor, hlo, jax_text, scalapack, shardy
from redistrib.text import brief
from redistrib.types.array_type import ArrayType
from redistrib.types.mesh import Mesh

Parse = Callable[[str, Mesh, Sequence[int] | None, object], ArrayType]


@dataclass(frozen=True, slots=True)
class Notation:
    """A notation: how its texts begin, and its reader and writer.

    `lacks` names what of an array its texts do not state, and the reader must be given.
    """

    name: str
    opening: re.Pattern[str]
    parse: Parse
    format: Callable[[ArrayType], str]
    lacks: tuple[str, ...] = ("shape", "dtype")


def _shape_needed(parse: Callable[[str, Mesh, Sequence[int], object], ArrayType]) -> Parse:
    """A reader that needs the shape, which `read_any` has looked for."""

    def read(text: str, mesh: Mesh, shape: Sequence[int] | None, dtype: object) -> ArrayType:
        assert shape is not None
        return parse(text, mesh, shape, dtype)

    return read


def _shape_in_text(parse: Callable[[str, Mesh], ArrayType]) -> Parse:
    """A reader of texts that state shape and dtype; what is given beside them must agree."""

    def read(text: str, mesh: Mesh, shape: Sequence[int] | None, dtype: object) -> ArrayType:
        t = parse(text, mesh)
        stated = ArrayType(mesh, dtype or t.dtype, t.shape if shape is None else shape)
        if (stated.shape, stated.dtype) != (t.shape, t.dtype):
            raise LayoutError(
                f"a shape and a dtype that are given are those of the text {text}; got "
                f"{list(stated.shape)} and {stated.dtype}",
                shape=stated.shape,
            )
        return t

    return read


_hlo = _shape_needed(hlo.parse_hlo)
NOTATIONS = (
    Notation(
        "aval",
        re.compile(r"\w+\[([^\]{]*@|[^\]]*\]\{[UR]:)"),
        _shape_in_text(jax_text.parse_aval),
        jax_text.format_aval,
        (),
    ),
    Notation("redistrib", re.compile(r"\w+\s*\["), _shape_in_text(ArrayType.parse), str, ()),
    Notation(
        "partition-spec",
        re.compile(r"P\(|PartitionSpec"),
        _shape_needed(jax_text.parse_partition_spec),
        jax_text.format_partition_spec,
    ),
    Notation(
        "named-sharding",
        re.compile(r"NamedSharding"),
        _shape_needed(jax_text.parse_named_sharding),
        jax_text.format_named_sharding,
    ),
    Notation("hlo", re.compile(r"\{"), _hlo, hlo.format_hlo),
    Notation("hlo1", re.compile(r"(?!)"), _hlo, partial(hlo.format_hlo, version=1)),
    Notation("hlo3", re.compile(r"(?!)"), _hlo, partial(hlo.format_hlo, version=3)),
    Notation(
        "sdy",
        re.compile(r"#?sdy\.|sharding<|<@|<mesh"),
        _shape_needed(shardy.parse_sdy),
        shardy.format_sdy,
    ),
    Notation("alpa", re.compile(r"ShardingSpec"), _shape_needed(alpa.parse_alpa), alpa.format_alpa),
    Notation(
        "scalapack",
        re.compile(r"\[\s*\d"),
        scalapack.parse_scalapack,
        scalapack.format_scalapack,
        ("dtype",),
    ),
    Notation(
        "colossalai",
        re.compile(r"\[\s*((R|S\d+)\s*[,\]](?!.*\()|\])"),
        _shape_needed(colossalai.parse_colossalai),
        colossalai.format_colossalai,
    ),
    Notation(
        "dtensor", re.compile(r"(DTensor)?Spec"), dtensor.parse_dtensor, dtensor.format_dtensor, ()
    ),
    Notation(
        "dtensor",
        re.compile(r"[\[(]?\s*(S\(|R|P\(|[A-Z_])"),
        dtensor.parse_dtensor,
        dtensor.format_dtensor,
    ),
)
"""In the order in which openings are tried. Versions of HLO differ in what is written only."""

NAMES = tuple(dict.fromkeys(notation.name for notation in NOTATIONS))


def read_any(
    text: str, mesh: Mesh, shape: Sequence[int] | None = None, dtype: object = None
) -> ArrayType:
    """The type in a text of any notation.

    Raises LayoutError where the text does not state the shape or the dtype and neither is given,
    where what is given contradicts it, or where the layout is illegal; TypeSyntaxError for
    malformed text.
    """
    text = text.strip()
    for notation in NOTATIONS:
        if notation.opening.match(text):
            return _read(notation, text, mesh, shape, dtype)
    return ArrayType.parse(text, mesh)  # says what is wrong with it


def states_array(text: str) -> bool:
    """Whether a text states the shape and the dtype of the array itself."""
    matches = (notation for notation in NOTATIONS if notation.opening.match(text.strip()))
    return next((not notation.lacks for notation in matches), False)


def read_as(
    name: str, text: str, mesh: Mesh, shape: Sequence[int] | None = None, dtype: object = None
) -> ArrayType:
    """The type in a text of the notation of this name; raises what `read_any` raises."""
    named = [notation for notation in NOTATIONS if notation.name == name]
    fitting = [notation for notation in named if notation.opening.match(text.strip())]
    return _read((fitting or named)[0], text.strip(), mesh, shape, dtype)


def write_as(name: str, t: ArrayType) -> str:
    """The type in the notation of this name. Raises LayoutError where it has no word for it."""
    return next(notation for notation in NOTATIONS if notation.name == name).format(t)


def _read(
    notation: Notation, text: str, mesh: Mesh, shape: Sequence[int] | None, dtype: object
) -> ArrayType:
    stated = {"shape": shape is not None, "dtype": dtype is not None}
    if missing := [field for field in notation.lacks if not stated[field]]:
        raise LayoutError(
            f"a layout in the notation {notation.name} does not state the {' and '.join(missing)}; "
            f"give {' and '.join(missing)} beside {brief(text)}",
            text=text,
        )
    return notation.parse(text, mesh, shape, dtype)
