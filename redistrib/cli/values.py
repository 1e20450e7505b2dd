"""The values that options name: sizes, problems, plan files, arrays.

Every failure is a RedistribError or an OSError, which the program turns into one line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redistrib.errors import BackendError, RedistribError, TypeSyntaxError
from redistrib.interop.notations import read_any, states_array
from redistrib.models.model_data import FORMAT as MODEL_FORMAT
from redistrib.synth.plan.json import check_format
from redistrib.text import brief, is_number, parse_size
from redistrib.types.array_type import ArrayType
from redistrib.types.canonical import as_shape
from redistrib.types.dtypes import exact_integers
from redistrib.types.mesh import Mesh

Array = NDArray[Any]


read_type = lru_cache(maxsize=1 << 14)(read_any)
"""A type that was read before, by its text: programs ask about the same layouts again."""


def problem_types(
    mesh: str | Mapping[str, int],
    src: str,
    dst: str,
    dst_mesh: str | None = None,
    shape: str | Sequence[int] | None = None,
    dtype: str | None = None,
) -> tuple[ArrayType, ArrayType]:
    """Source and target type of a problem given as texts of any notation. Raises RedistribError.

    Where one of them states the shape and the dtype of the array, the other need not.
    """
    source_mesh = Mesh.parse(mesh) if isinstance(mesh, str) else Mesh(mesh)
    target_mesh = source_mesh if dst_mesh is None else Mesh.parse(dst_mesh)
    sizes = parse_shape(shape)
    if states_array(dst) and not states_array(src):
        target = read_type(dst, target_mesh, sizes, dtype)
        return read_type(src, source_mesh, target.shape, target.dtype), target
    source = read_type(src, source_mesh, sizes, dtype)
    if states_array(dst):  # the planner says what differs
        return source, read_type(dst, target_mesh)
    return source, read_type(dst, target_mesh, source.shape, source.dtype)


def parse_shape(shape: str | Sequence[int] | None) -> tuple[int, ...] | None:
    """A shape written as `4096,1024`, with or without brackets. Raises RedistribError.

    >>> parse_shape("4096, 1024"), parse_shape("[]"), parse_shape(None)
    ((4096, 1024), (), None)
    """
    if not isinstance(shape, str):
        return None if shape is None else as_shape(shape)
    words = [word.strip() for word in shape.strip().strip("[]()").split(",")]
    if words and not words[-1]:  # (8,) and ()
        words.pop()
    if not all(is_number(word) and len(word) < 20 for word in words):
        raise RedistribError(f"a shape is written as 4096,1024; got {brief(shape)}", shape=shape)
    return tuple(map(int, words))


def stated_problem(
    src: str,
    dst: str,
    mesh: Any,
    dst_mesh: str | None = None,
    shape: str | Sequence[int] | None = None,
    dtype: str | None = None,
    strategy: str | None = None,
    memory_limit: str | int | None = None,
    profile: str | None = None,
) -> tuple[tuple[ArrayType, ArrayType], dict[str, Any]]:
    """The arguments of rd.plan and rd.cost, by position and by name."""
    limit = None if memory_limit is None else parse_size(memory_limit)
    options = {
        "strategy": "auto" if strategy is None else strategy,
        "memory_limit": limit,
        "profile": profile,
    }
    return problem_types(mesh, src, dst, dst_mesh, shape, dtype), options


def load_plan(path: Path) -> dict[str, Any]:
    """The data of a plan file, unchecked but for its format.

    Raises OSError, or RedistribError where the file is not JSON or of another format.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise RedistribError(
            f"a plan is a JSON file; {path} is not: line {error.lineno} column {error.colno}: "
            f"{error.msg}",
            path=path,
        ) from None
    except (ValueError, RecursionError) as error:  # no text, or a number too long to read
        raise RedistribError(f"a plan is a JSON file; {path} is not: {error}", path=path) from None
    is_model = isinstance(data, dict) and data.get("format") == MODEL_FORMAT
    return data if is_model else check_format(data)


def load_array(path: Path, t: ArrayType) -> Array:
    """The array of a .npy file, of the shape and dtype of `t`.

    Raises OSError, or RedistribError where the file is not such an array.
    """
    try:
        with path.open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise RedistribError(
            f"an input is a .npy file; {path} is not: {error}", path=path
        ) from None
    dtype = t.numpy_dtype
    # numpy stores a dtype that is not its own (bfloat16, float8) as opaque bytes.
    if array.dtype.kind == "V" and array.dtype.itemsize == dtype.itemsize:
        array = array.view(dtype)
    if array.shape != t.shape or array.dtype != dtype:
        raise BackendError(
            f"the input has the shape and dtype of the source type, {list(t.shape)} {dtype}; "
            f"got {list(array.shape)} {array.dtype}",
            shape=array.shape,
            dtype=array.dtype,
        )
    return array


def example_array(t: ArrayType, *, summed: bool) -> Array:
    """Seeded small integers of the shape and dtype of `t`, exact in it.

    `summed`: small enough that a reduction over any order of addends is exact too.
    """
    dtype = t.numpy_dtype
    limit = min(exact_integers(t.dtype), 8 if summed else 2**15)
    generator = np.random.default_rng(0)
    return generator.integers(0, limit, t.shape, dtype=np.int16).astype(dtype)


def equal(a: Array, b: Array, *, summed: bool) -> bool:
    """Whether two arrays are equal, bit for bit unless values were added up on the way."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if summed:
        return np.array_equal(a, b, equal_nan=True)
    return a.tobytes() == b.tobytes()


def one_line(error: Exception) -> str:
    """What an error says, as one line."""
    match error:
        case TypeSyntaxError(text=text):
            # The lines after the first point at the column with a caret.
            first = str(error).split("\n", maxsplit=1)[0]
            return first if repr(text) in first else f"{first} in {text!r}"
        case OSError(strerror=str(reason), filename=name) if name is not None:
            return f"{name}: {reason}"
        case MemoryError():
            return f"not enough memory: {error}"
        case _:
            return " ".join(str(error).split())
