"""One reader for the notations of other projects: every failure names its column."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NoReturn, TypeVar

from redistrib.errors import LayoutError, TypeSyntaxError
from redistrib.types.mesh import Mesh

Item = TypeVar("Item")

_SPACE = re.compile(r"\s*")
# No size or device id has more digits, and int() refuses some thousands of them.
_INTEGER = re.compile(r"[0-9]{1,18}(?![0-9])")
_QUOTED = re.compile(r"""'([^']*)'|"([^"]*)\"""")


class Scanner:
    """Reads tokens off a text, white space between them ignored.

    >>> scanner = Scanner("{ 2, 4 }")
    >>> scanner.expect("{")
    '{'
    >>> scanner.listed(scanner.integer, "}")
    [2, 4]
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    @property
    def column(self) -> int:
        """Column (from 1) of the next token."""
        self._skip()
        return self.at + 1

    def fail(self, expected: str, column: int | None = None) -> NoReturn:
        """Raise TypeSyntaxError: at this column, by default that of the next token."""
        column = column or self.column
        got = re.compile(r"[\w.\-]+|.|$", re.DOTALL).match(self.text, column - 1)
        given = repr(got[0]) if got and got[0] else "the end of the text"
        raise TypeSyntaxError(
            f"column {column}: expected {expected}, got {given}\n"
            f"  {self.text}\n  {' ' * (column - 1)}^",
            text=self.text,
            column=column,
        )

    def maybe(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """The match of a pattern at this place, taken; or None."""
        self._skip()
        found = pattern.match(self.text, self.at)
        if found is not None:
            self.at = found.end()
        return found

    def take(self, pattern: re.Pattern[str], expected: str) -> str:
        """The text that matches a pattern at this place."""
        found = self.maybe(pattern)
        if found is None:
            self.fail(expected)
        return found[0]

    def accept(self, *marks: str) -> str | None:
        """The first of these marks that stands here, taken; or None. A word ends where it ends."""
        self._skip()
        for mark in marks:
            end = self.at + len(mark)
            word = mark[-1:].isalnum() and self.text[end : end + 1].isalnum()
            if self.text.startswith(mark, self.at) and not word:
                self.at = end
                return mark
        return None

    def ahead(self, *marks: str) -> bool:
        """Whether these marks stand here, one after another; none is taken."""
        start = self.at
        there = all(self.accept(mark) for mark in marks)
        self.at = start
        return there

    def expect(self, *marks: str) -> str:
        """The one of these marks that stands here."""
        found = self.accept(*marks)
        if found is None:
            self.fail(" or ".join(map(repr, marks)))
        return found

    def integer(self, expected: str = "an integer", least: int = 0) -> int:
        """A decimal integer, not below `least`."""
        column = self.column
        number = int(self.take(_INTEGER, expected))
        if number < least:
            self.fail(f"{expected} of at least {least}", column)
        return number

    def quoted(self, expected: str = "a name in quotes") -> str:
        """What stands between single or double quotes."""
        found = self.maybe(_QUOTED)
        if found is None:
            self.fail(expected)
        return found[1] if found[1] is not None else found[2]

    def listed(self, item: Callable[[], Item], close: str, *, trailing: bool = False) -> list[Item]:
        """Items between commas, up to and including `close`; `trailing`: a comma may precede it."""
        found: list[Item] = []
        while not self.accept(close):
            if found:
                if not self.accept(","):
                    self.fail(f"',' or {close!r}")
                if trailing and self.accept(close):
                    break
            found.append(item())
        return found

    def end(self) -> None:
        """Nothing but white space may follow."""
        self._skip()
        if self.at < len(self.text):
            self.fail("the end")

    def known_axis(self, name: str, mesh: Mesh, column: int) -> str:
        """An axis of the mesh, read at this column."""
        if name not in mesh.sizes:
            self.fail(f"an axis of the mesh ({', '.join(mesh.sizes) or 'it has none'})", column)
        return name

    def legal(self, build: Callable[[], Item], column: int) -> Item:
        """What `build` makes of what was read at this column; its LayoutError gets the column."""
        try:
            return build()
        except LayoutError as error:
            raise TypeSyntaxError(
                f"column {column}: {error}\n  {self.text}\n  {' ' * (column - 1)}^",
                text=self.text,
                column=column,
            ) from None

    def _skip(self) -> None:
        space = _SPACE.match(self.text, self.at)
        self.at = space.end() if space else self.at
