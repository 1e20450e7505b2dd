"""One reader for every notation: types, meshes, layouts of other projects, sizes in bytes.

A `Scanner` takes tokens off a text from left to right. Every failure is a TypeSyntaxError that
names the column, what was expected there and what stands there, and shows it:

>>> Scanner("x = 2, y : 4").listed(lambda: None, "]")
Traceback (most recent call last):
redistrib.errors.TypeSyntaxError: column 1: expected ',' or ']', got 'x'
  x = 2, y : 4
  ^
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Iterable
from decimal import Decimal
from math import nan
from operator import index
from typing import Any, NoReturn, TypeVar

from redistrib.errors import LayoutError, RedistribError, TypeSyntaxError

Item = TypeVar("Item")

MAX_DIGITS = 640
"""Decimal digits of a number in a text: Python reads so many under every setting of its limit."""
MAX_INTEGER = 2**63 - 1
"""No size, position or device id is larger: numpy counts with 64 bits."""

# `_8` is a local factor in the text of a type, so no axis can be called so.
AXIS_NAME = re.compile(r"(?!_\d+\b)[A-Za-z_][A-Za-z0-9_.\-]*", re.ASCII)

_SPACE = re.compile(r"\s*")
_INTEGER = re.compile(r"[0-9]+")
_QUOTED = re.compile(r"""'([^']*)'|"([^"]*)\"""")
_TOKEN = re.compile(r"[\w.\-]+|.|$", re.DOTALL)
_BYTES = re.compile(r"\s*(\d{1,30}(?:\.\d{1,30})?)\s*([A-Za-z]*)\s*", re.ASCII)
_UNITS = {
    "": 1,
    "b": 1,
    **{f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", start=1)},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", start=1)},
}
_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 80


class Scanner:
    """Reads tokens off a text, white space between them ignored.

    >>> scanner = Scanner("{ 2, 4 }")
    >>> scanner.expect("{")
    '{'
    >>> scanner.listed(scanner.integer, "}")
    [2, 4]

    Raises TypeSyntaxError for what is no text.
    """

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise TypeSyntaxError(
                f"a notation is a text; got {brief(text)} of type {type(text).__name__}", text=text
            )
        self.text = text
        self.offset = 0

    @property
    def column(self) -> int:
        """Column (from 1) of the next token."""
        self._skip()
        return self.offset + 1

    def fail(self, expected: str, column: int | None = None, got: str | None = None) -> NoReturn:
        """Raise TypeSyntaxError: at this column, by default that of the next token."""
        column = column or self.column
        token = _TOKEN.match(self.text, column - 1)
        if got is None and token and token[0]:
            got = token[0]
        shown = "the end of the text" if got is None else repr(got)
        raise self.error(f"expected {expected}, got {shown}", column)

    def error(self, message: str, column: int) -> TypeSyntaxError:
        """The error with this message at a column, with the text and a mark below the column."""
        start = self.text.rfind("\n", 0, column - 1) + 1
        end = self.text.find("\n", start)
        line = self.text[start : end if end >= 0 else None]
        mark = " " * (column - 1 - start) + "^"
        return TypeSyntaxError(
            f"column {column}: {message}\n  {line}\n  {mark}", text=self.text, column=column
        )

    def maybe(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """The match of a pattern at this place, taken; or None."""
        self._skip()
        match = pattern.match(self.text, self.offset)
        if match is not None:
            self.offset = match.end()
        return match

    def take(self, pattern: re.Pattern[str], expected: str) -> str:
        """The text that matches a pattern at this place."""
        match = self.maybe(pattern)
        if match is None:
            self.fail(expected)
        return match[0]

    def accept(self, *marks: str) -> str | None:
        """The first of these marks that stands here, taken; or None. A word ends where it ends."""
        self._skip()
        for mark in marks:
            if self.text.startswith(mark, self.offset):
                end = self.offset + len(mark)
                if not (mark[-1].isalnum() and self.text[end : end + 1].isalnum()):
                    self.offset = end
                    return mark
        return None

    def ahead(self, *marks: str) -> bool:
        """Whether these marks stand here, one after another; none is taken."""
        start = self.offset
        matched = all(self.accept(mark) for mark in marks)
        self.offset = start
        return matched

    def expect(self, *marks: str) -> str:
        """The one of these marks that stands here."""
        mark = self.accept(*marks)
        if mark is None:
            self.fail(" or ".join(map(repr, marks)))
        return mark

    def integer(self, expected: str = "an integer", least: int = 0) -> int:
        """A decimal integer, not below `least`."""
        column = self.column
        number = self.number(self.take(_INTEGER, expected), column)
        if number < least:
            self.fail(f"{expected} of at least {least}", column)
        return number

    def number(self, digits: str, column: int) -> int:
        """The integer that these digits, read at this column, stand for."""
        if len(digits) > MAX_DIGITS:
            got = f"{digits[:8]}... of {len(digits)}"
            self.fail(f"at most {MAX_DIGITS} digits", column, got)
        number = int(digits)
        if number > MAX_INTEGER:
            got = digits if len(digits) < 32 else f"{digits[:8]}... of {len(digits)} digits"
            self.fail(f"an integer of at most {MAX_INTEGER}", column, got)
        return number

    def quoted(self, expected: str = "a name in quotes") -> str:
        """What stands between single or double quotes."""
        match = self.maybe(_QUOTED)
        if match is None:
            self.fail(expected)
        return match[1] if match[1] is not None else match[2]

    def listed(self, item: Callable[[], Item], close: str, *, trailing: bool = False) -> list[Item]:
        """Items between commas, up to and including `close`; `trailing`: a comma may precede it."""
        items: list[Item] = []
        while not self.accept(close):
            if items:
                if not self.accept(","):
                    self.fail(f"',' or {close!r}")
                if trailing and self.accept(close):
                    break
            items.append(item())
        return items

    def end(self) -> None:
        """Nothing but white space may follow."""
        if not self.at_end():
            self.fail("the end")

    def at_end(self) -> bool:
        """Whether nothing but white space follows."""
        self._skip()
        return self.offset >= len(self.text)

    def known_axis(self, name: str, axes: Iterable[str], column: int) -> str:
        """A name, read at this column, which is one of these axes of the mesh."""
        axes = list(axes)
        if name not in axes:
            self.fail(f"an axis of the mesh ({', '.join(axes) or 'it has none'})", column)
        return name

    def legal(self, build: Callable[[], Item], column: int) -> Item:
        """What `build` makes of what was read at this column; its LayoutError gets the column."""
        try:
            return build()
        except LayoutError as error:
            raise self.error(str(error), column) from None

    def _skip(self) -> None:
        if self.text[self.offset : self.offset + 1].isspace():
            self.offset = _SPACE.match(self.text, self.offset).end()  # type: ignore[union-attr]


def is_number(text: str) -> bool:
    """Whether a text is a decimal number, of MAX_DIGITS ASCII digits at most."""
    return text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS


def is_kind(value: object, kind: Any) -> bool:
    """Whether what a caller gave is of a kind, or one of several, whatever it was declared as."""
    return isinstance(value, kind)


def as_integer(value: object) -> int | None:
    """An integer given as one, of Python or numpy; None for anything else, a truth value too.

    >>> as_integer(8), as_integer(8.0), as_integer(True)
    (8, None, None)
    """
    if type(value) is int:
        return value
    if isinstance(value, bool) or type(value).__name__ == "bool":  # numpy's has an index too
        return None
    try:
        return index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def as_number(value: object) -> float:
    """A number given as one; NaN for anything else, a text or a truth value too.

    >>> as_number(2), as_number("2")
    (2.0, nan)
    """
    if isinstance(value, (str, bytes, bool)) or type(value).__name__ == "bool":
        return nan
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return nan


def parse_size(size: str | int) -> int:
    """Bytes from `123`, `1GiB` (1024^3) or `1.5 GB` (1000^3); the unit in either case.

    >>> parse_size("1GiB"), parse_size("1.5 kB"), parse_size(7)
    (1073741824, 1500, 7)

    Raises RedistribError for anything else: negative numbers, truth values and floats too.
    """
    number = as_integer(size)
    if number is not None and number >= 0:
        return number
    match = _BYTES.fullmatch(size) if isinstance(size, str) else None
    if match is None or match[2].lower() not in _UNITS:
        raise RedistribError(
            "a size is a whole number of bytes or a text with an optional unit "
            f"(B, kB, MB, GB, TB, KiB, MiB, GiB, TiB); got {brief(size)}",
            size=size,
        )
    return int(Decimal(match[1]) * _UNITS[match[2].lower()])


def parse_limit(limit: str | int | None) -> int | None:
    """A memory limit in bytes per device, as `parse_size` reads it; None for no limit."""
    return None if limit is None else parse_size(limit)


def brief(value: object) -> str:
    """A value as an error shows it: on one line, and short whatever it is.

    >>> brief([0] * 1000), brief("x" * 10)
    ('[0, 0, 0, 0, 0, 0, ...]', "'xxxxxxxxxx'")
    """
    try:
        return " ".join(_BRIEF.repr(value).split())
    except ValueError:  # a number too long to print
        return f"an object of type {type(value).__name__}"
