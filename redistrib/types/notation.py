"""The text of a type:  DTYPE[SIZE{FACTOR,...}, ...] REDUCTION{AXIS,...}.

f32[4096{x}, 1024{y:(1)2,_4}] sum{z}
"""

from __future__ import annotations

import re
from typing import NoReturn

from redistrib.errors import LayoutError, TypeSyntaxError
from redistrib.types import dtypes
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import MAX_DIGITS, DeviceDigit, Factor, Local
from redistrib.types.mesh import AXIS_NAME, Mesh
from redistrib.types.reduction import REDUCTIONS

_TOKEN = re.compile(
    r"\s*(?:(?P<local>_\d+\b)|(?P<subaxis>(?P<axis>NAME)\s*:\s*\(\s*(?P<pre>\d+)\s*\)\s*(?P<size>\d+))"
    r"|(?P<name>NAME)|(?P<number>\d+)|(?P<mark>[\[\]{},]))".replace("NAME", AXIS_NAME.pattern),
    re.ASCII,
)


def format_factor(factor: Factor, mesh: Mesh) -> str:
    """The text of a factor: `x` for a whole axis, `x:(m)k` for a part, `_k` for a local factor."""
    match factor:
        case DeviceDigit(axis, 1, size) if size == mesh.axis_size(axis):
            return axis
        case DeviceDigit() | Local():
            return str(factor)


def format_type(t: ArrayType) -> str:
    """The text of a type; `parse_type` reads it back to an equal type."""
    dims = []
    for n, factors in zip(t.shape, t.dims, strict=True):
        inner = ",".join(format_factor(factor, t.mesh) for factor in factors)
        dims.append(f"{n}{{{inner}}}" if inner else str(n))
    text = f"{t.dtype}[{', '.join(dims)}]"
    if t.partial:
        text += f" {t.reduction}{{{','.join(format_factor(f, t.mesh) for f in t.partial)}}}"
    return text


def parse_type(text: str, mesh: Mesh) -> ArrayType:
    """The type written as `text`.

    Raises TypeSyntaxError with the column (from 1) where the text departs from the syntax, and
    LayoutError where the type is illegal on this mesh.
    """
    reader = _Reader(text)
    name, column = reader.take("name", "a dtype")
    try:
        dtype = dtypes.dtype_name(name)
    except LayoutError as error:
        raise TypeSyntaxError(
            f"column {column}: {error}\n  {text}\n  {' ' * (column - 1)}^", text=text, column=column
        ) from None
    reader.expect("[")
    shape: list[int] = []
    dims: list[list[str | Factor]] = []
    while not reader.accept("]"):
        if shape:
            reader.expect(",", "',' or ']'")
        shape.append(int(reader.take("number", "the size of a dimension")[0]))
        dims.append(reader.factors() if reader.accept("{") else [])
    partial: list[str | Factor] = []
    reduction = "sum"
    if not reader.at_end():
        reduction, column = reader.take("name", f"one of {', '.join(REDUCTIONS)}, or the end")
        if reduction not in REDUCTIONS:
            reader.fail(f"one of {', '.join(REDUCTIONS)}", reduction, column)
        reader.expect("{")
        partial = reader.factors()
    if not reader.at_end():
        reader.fail("the end")
    return ArrayType(mesh, dtype, shape, dims, partial, reduction)  # type: ignore[arg-type]


class _Reader:
    """Reads tokens off a text; every failure names the column and what was expected."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def peek(self) -> re.Match[str] | None:
        token = _TOKEN.match(self.text, self.at)
        for kind in ("local", "pre", "size", "number"):
            digits = (token[kind] or "").lstrip("_") if token else ""
            if token and len(digits) > MAX_DIGITS:
                column = token.start(kind) + 1
                self.fail(
                    f"at most {MAX_DIGITS} digits", f"{digits[:8]}... of {len(digits)}", column
                )
        return token

    def at_end(self) -> bool:
        return not self.text[self.at :].strip()

    def fail(self, expected: str, got: str | None = None, column: int | None = None) -> NoReturn:
        if column is None:
            start = len(self.text) - len(self.text[self.at :].lstrip())
            column = start + 1
            got = self.text[start : start + 1]
        raise TypeSyntaxError(
            f"column {column}: expected {expected}, got {got!r}\n  {self.text}\n  "
            f"{' ' * (column - 1)}^"
            if got
            else f"column {column}: expected {expected}, got the end of the text: {self.text!r}",
            text=self.text,
            column=column,
        )

    def accept(self, mark: str) -> bool:
        token = self.peek()
        if token is None or token["mark"] != mark:
            return False
        self.at = token.end()
        return True

    def expect(self, mark: str, expected: str | None = None) -> None:
        if not self.accept(mark):
            self.fail(expected or repr(mark))

    def take(self, kind: str, expected: str) -> tuple[str, int]:
        token = self.peek()
        if token is None or token[kind] is None:
            self.fail(expected)
        self.at = token.end()
        return token[kind], token.start(kind) + 1

    def factors(self) -> list[str | Factor]:
        """The factors up to and including the closing brace."""
        found: list[str | Factor] = []
        while not self.accept("}"):
            if found:
                self.expect(",", "',' or '}'")
            token = self.peek()
            if token is None or not (token["local"] or token["subaxis"] or token["name"]):
                self.fail("an axis, a sub-axis x:(m)k or a local factor _k")
            self.at = token.end()
            if token["subaxis"]:
                found.append(DeviceDigit(token["axis"], int(token["pre"]), int(token["size"])))
            else:
                found.append(token["local"] or token["name"])
        return found
