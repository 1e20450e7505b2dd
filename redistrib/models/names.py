"""Names with placeholders, and integers that depend on them.

    layers.{i}.wq        the name of layer i, for every i for which there is one
    {i+4}, {i*2}         an integer that goes with it

A placeholder is a non-negative integer, written without leading zeros. A *binding* gives each
placeholder its value: `{"i": 3}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from redistrib.errors import WeightMapError
from redistrib.text import MAX_INTEGER, as_integer, brief, is_kind

Binding = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Affine:
    """`factor * placeholder + offset`, written `{i}`, `{i*2}`, `{i+4}` or `{i*2+1}`.

    >>> str(Affine("i", 2, -1)), Affine("i", 2, -1).value({"i": 3})
    ('{i*2-1}', 5)
    """

    placeholder: str
    factor: int = 1
    offset: int = 0

    def __post_init__(self) -> None:
        name = self.placeholder
        if not is_kind(name, str) or not PLACEHOLDER.fullmatch(name):
            raise WeightMapError(f"a placeholder is a word; got {brief(name)}", placeholder=name)
        integer("the factor of a placeholder", self.factor, least=1)
        integer("what is added to a placeholder", self.offset)

    def value(self, binding: Binding) -> int:
        """The integer under a binding. Raises WeightMapError if the placeholder has no value."""
        if self.placeholder not in binding:
            raise WeightMapError(
                f"nothing gives the placeholder {{{self.placeholder}}} a value; bound here: "
                f"{', '.join(binding) or 'none'}",
                placeholder=self.placeholder,
            )
        return self.factor * binding[self.placeholder] + self.offset

    def solve(self, value: int) -> int | None:
        """The value of the placeholder that gives this integer; None if none does.

        >>> Affine("i", 2, 1).solve(7), Affine("i", 2, 1).solve(8)
        (3, None)
        """
        quotient, remainder = divmod(value - self.offset, self.factor)
        return None if remainder or quotient < 0 else quotient

    def __str__(self) -> str:
        factor = f"*{self.factor}" if self.factor != 1 else ""
        offset = f"{self.offset:+d}" if self.offset else ""
        return f"{{{self.placeholder}{factor}{offset}}}"


Number = int | Affine

PLACEHOLDER = re.compile(r"[A-Za-z_]\w*", re.ASCII)
"""A placeholder without its braces."""


def integer(label: str, value: object, least: int = -MAX_INTEGER) -> int:
    """An integer that a map has in it. Raises WeightMapError for anything else, or too large."""
    number = as_integer(value)
    if number is None or not least <= number <= MAX_INTEGER:
        at_least = f" of at least {least}" if least > -MAX_INTEGER else ""
        raise WeightMapError(f"{label} is an integer{at_least}; got {brief(value)}", value=value)
    return number


def number(value: Number, binding: Binding) -> int:
    """The integer that a number is under a binding."""
    return value.value(binding) if isinstance(value, Affine) else value


PLAIN_NAME = re.compile(r"[A-Za-z0-9_./-]+")
"""The names that need no quotes."""
_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)(?:\*([0-9]{1,18}))?([+-][0-9]{1,18})?\}", re.ASCII)
_DIGITS = "(0|[1-9][0-9]{0,17})"


@dataclass(frozen=True, slots=True)
class Name:
    """The name of an array, as text and placeholders in turn.

    >>> name = Name.parse("layers.{i}.wq")
    >>> name.text({"i": 3}), name.match("layers.12.wq"), name.match("layers.012.wq")
    ('layers.3.wq', {'i': 12}, None)
    """

    pieces: tuple[str | Affine, ...]

    @classmethod
    def parse(cls, text: str) -> Name:
        """The name written like this.

        Raises WeightMapError for braces that hold no placeholder, for a line's end, and for two
        placeholders with nothing but digits between them: of `b{i}{j}` b123 could be any of three.
        """
        _check_text(text)
        pieces: list[str | Affine] = []
        end = 0
        for match in _PLACEHOLDER.finditer(text):
            pieces += [text[end : match.start()]] if match.start() > end else []
            affine = Affine(match[1], int(match[2] or 1), int(match[3] or 0))
            if affine.factor == 0:
                raise WeightMapError(f"{match[0]} does not depend on its placeholder", name=text)
            pieces.append(affine)
            end = match.end()
        pieces += [text[end:]] if end < len(text) else []
        if not pieces or any("{" in p or "}" in p for p in pieces if isinstance(p, str)):
            raise WeightMapError(
                f"a name is text with placeholders like {{i}}, {{i+4}} or {{i*2}}; got {text!r}",
                name=text,
            )
        if re.search(r"\}[0-9]*\{", text):
            raise WeightMapError(
                f"something other than digits stands between two placeholders; got {text!r}",
                name=text,
            )
        return cls(tuple(pieces))

    @classmethod
    def literal(cls, text: str) -> Name:
        """The name of one array. Raises WeightMapError for one with placeholders."""
        name = cls.parse(text)
        if name.placeholders:
            raise WeightMapError(
                f"the name of an array has no placeholders; got {text!r}", name=text
            )
        return name

    @property
    def placeholders(self) -> frozenset[str]:
        """The placeholders in the name."""
        return frozenset(piece.placeholder for piece in self.pieces if isinstance(piece, Affine))

    def text(self, binding: Binding) -> str:
        """The name under a binding."""
        return "".join(
            str(piece.value(binding)) if isinstance(piece, Affine) else piece
            for piece in self.pieces
        )

    def match(self, text: str) -> dict[str, int] | None:
        """The binding under which the name is this text; None if there is none."""
        return next(self.matches([text]), None)

    def matches(self, texts: Iterable[str]) -> Iterator[dict[str, int]]:
        """The bindings under which the name is one of these texts, in their order."""
        pattern = re.compile(
            "".join(_DIGITS if isinstance(p, Affine) else re.escape(p) for p in self.pieces)
        )
        affines = [piece for piece in self.pieces if isinstance(piece, Affine)]
        for text in texts:
            matched = pattern.fullmatch(text)
            if matched is None:
                continue
            binding: dict[str, int] = {}
            for affine, digits in zip(affines, matched.groups(), strict=True):
                value = affine.solve(int(digits))
                if value is None or binding.setdefault(affine.placeholder, value) != value:
                    break
            else:
                yield binding

    def __str__(self) -> str:
        text = "".join(map(str, self.pieces))
        plain = all(isinstance(p, Affine) or PLAIN_NAME.fullmatch(p) for p in self.pieces)
        return text if plain else '"' + text.replace("\\", r"\\").replace('"', r"\"") + '"'


def _check_text(text: object) -> None:
    if not isinstance(text, str) or "\n" in text:
        raise WeightMapError(f"a name is a text on one line; got {brief(text)}", name=text)
