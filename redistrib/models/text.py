"""Weight maps as text: a rule a line; lines go on inside brackets; `#` starts a comment.

    NAME = EXPR [for {i} in A:B, ...]
    EXPR = NAME | concat(DIM, EXPR, ...) | stack(DIM, EXPR, ...) | stack(DIM, {e} in A:B: EXPR)
         | rearrange(EXPR, "PATTERN", name=SIZE, ...) | pad(EXPR, DIM, SIZE) | cast(EXPR, DTYPE)
         | EXPR[INDEX, ...]

A NAME has letters, digits, `. _ - /` and placeholders `{i}`, or is quoted. An INDEX is an integer,
`A:B`, `A:B:STEP` or `:`; integers and sizes may be `{i}`, `{i+4}`, `{i*2}`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NoReturn

from redistrib.errors import LayoutError, WeightMapError
from redistrib.models.expression import (
    MAX_DEPTH,
    Cast,
    Concat,
    Expression,
    Index,
    Over,
    Pad,
    Position,
    Rearrange,
    Source,
    Span,
    Stack,
)
from redistrib.models.names import Affine, Name, Number
from redistrib.models.pattern import Pattern
from redistrib.models.rule import Rule
from redistrib.types.dtypes import dtype_name

_NAME = re.compile(r"(?:[A-Za-z0-9_./-]|\{[^{}\s]*\})+")
_QUOTED = re.compile(r'"((?:[^"\\\n]|\\["\\])*)"')
_INTEGER = re.compile(r"-?[0-9]{1,18}(?![0-9])")
_WORD = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_CALL = re.compile(r"(concat|stack|rearrange|pad|cast)\s*\(")
_OVER = re.compile(r"\{([A-Za-z_]\w*)\}\s+in\b", re.ASCII)
_BLANK = re.compile(r"(?:[ \t\r]|#[^\n]*)*")
_BLANK_LINES = re.compile(r"(?:\s|#[^\n]*)*")


def parse_rules(text: str) -> list[Rule]:
    """The rules in a text. Raises WeightMapError with the line and column of what is wrong."""
    if not isinstance(text, str):
        raise WeightMapError(f"a weight map is a text; got {text!r}", text=text)
    reader = _Reader(text)
    rules = []
    while reader.more_rules():
        rules.append(reader.rule())
    return rules


class _Reader:
    """Reads a text from `offset` on; inside brackets, `depth` of them, lines go on."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.offset = 0
        self.depth = 0

    def position(self, offset: int | None = None) -> Position:
        offset = self.offset if offset is None else offset
        line = self.text.count("\n", 0, offset) + 1
        return Position(line, offset - (self.text.rfind("\n", 0, offset) + 1) + 1)

    def fail(self, message: str, offset: int | None = None) -> NoReturn:
        line, column = self.position(offset)
        raise WeightMapError(
            f"line {line}, column {column}: {message}", line=line, column=column
        ) from None

    def expected(self, label: str) -> NoReturn:
        self.skip()
        token = self.text[self.offset : self.offset + 20].partition("\n")[0]
        self.fail(f"expected {label}, got {token!r}" if token else f"expected {label}")

    def skip(self) -> None:
        blank = _BLANK_LINES if self.depth else _BLANK
        match = blank.match(self.text, self.offset)
        assert match is not None
        self.offset = match.end()

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        self.skip()
        match = pattern.match(self.text, self.offset)
        if match is not None:
            self.offset = match.end()
        return match

    def accept(self, mark: str) -> bool:
        self.skip()
        if not self.text.startswith(mark, self.offset):
            return False
        self.offset += len(mark)
        self.depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(mark, 0)
        return True

    def expect(self, mark: str, label: str | None = None) -> None:
        if not self.accept(mark):
            self.expected(label or repr(mark))

    def more_rules(self) -> bool:
        match = _BLANK_LINES.match(self.text, self.offset)
        assert match is not None
        self.offset = match.end()
        return self.offset < len(self.text)

    def rule(self) -> Rule:
        position, start = self.position(), self.offset
        target = self.name("a rule, NAME = EXPR")
        self.expect("=")
        expression = self.expression()
        ranges: list[Over] = []
        while self.take(re.compile(r"for\b")):
            ranges.append(self.over())
            while self.accept(","):
                ranges.append(self.over())
        self.skip()
        if self.offset < len(self.text) and self.text[self.offset] != "\n":
            self.expected("the end of the rule, or 'for {i} in A:B'")
        if any(isinstance(p, Affine) and (p.factor, p.offset) != (1, 0) for p in target.pieces):
            self.fail("a target's placeholders are plain, {i}", start)
        return Rule(target, expression, tuple(ranges), position)

    def name(self, label: str) -> Name:
        self.skip()
        start = self.offset
        if quoted := self.take(_QUOTED):
            text = re.sub(r"\\(.)", r"\1", quoted[1])
        elif plain := self.take(_NAME):
            text = plain[0]
        else:
            self.expected(label)
        try:
            return Name.parse(text)
        except WeightMapError as error:
            self.fail(str(error), start)

    def expression(self) -> Expression:
        self.skip()
        start = self.offset
        try:
            return self.unlocated()
        except WeightMapError as error:
            if "line" in vars(error):
                raise
            self.fail(str(error), start)

    def unlocated(self) -> Expression:
        """An expression; what does not fit each other raises WeightMapError without a line."""
        if self.depth > MAX_DEPTH:
            self.fail(f"at most {MAX_DEPTH} brackets are in one another")
        start, position = self.offset, self.position()
        node: Expression
        if call := _CALL.match(self.text, self.offset):
            self.offset = call.end()
            self.depth += 1
            node = replace(self.call(call[1], start), position=position)
            self.expect(")", "',' or ')'" if call[1] in ("concat", "stack", "rearrange") else None)
        else:
            node = Source(self.name("an expression"), position=position)
        while self.accept("["):
            entries = [self.entry()]
            while self.accept(","):
                entries.append(self.entry())
            self.expect("]", "',' or ']'")
            node = Index(node, tuple(entries), position=position)
        return node

    def call(self, kind: str, start: int) -> Expression:
        """What stands between the brackets of a call."""
        match kind:
            case "concat":
                return Concat(self.dim(), self.parts())
            case "stack":
                dim = self.dim()
                self.expect(",")
                self.skip()
                if _OVER.match(self.text, self.offset):
                    over = self.over()
                    self.expect(":")
                    return Stack(dim, (self.expression(),), over)
                self.offset = self.text.rindex(",", 0, self.offset)
                return Stack(dim, self.parts())
            case "rearrange":
                return self.rearrange()
            case "pad":
                array = self.expression()
                self.expect(",")
                dim = self.dim()
                self.expect(",")
                return Pad(array, dim, self.number("a size"))
            case _:
                array = self.expression()
                self.expect(",")
                self.skip()
                start = self.offset
                word = self.take(_WORD)
                if word is None:
                    self.expected("a dtype")
                try:
                    return Cast(array, dtype_name(word[0]))
                except LayoutError as error:
                    self.fail(str(error), start)

    def rearrange(self) -> Rearrange:
        array = self.expression()
        self.expect(",")
        self.skip()
        start = self.offset
        quoted = self.take(_QUOTED)
        if quoted is None:
            self.expected('a pattern in quotes, such as "(h d) m -> h m d"')
        try:
            pattern = Pattern.parse(quoted[1])
        except WeightMapError as error:
            self.fail(str(error), start)
        sizes: dict[str, Number] = {}
        while self.accept(","):
            self.skip()
            start = self.offset
            word = self.take(_WORD)
            if word is None or not self.accept("="):
                self.expected("name=SIZE")
            if word[0] in sizes:
                self.fail(f"{word[0]} has one size", start)
            sizes[word[0]] = self.number("a size")
        return Rearrange(array, pattern, tuple(sizes.items()))

    def parts(self) -> tuple[Expression, ...]:
        parts = []
        self.expect(",")
        parts.append(self.expression())
        while self.accept(","):
            parts.append(self.expression())
        return tuple(parts)

    def dim(self) -> int:
        return self.integer("a dimension")

    def integer(self, label: str) -> int:
        match = self.take(_INTEGER)
        if match is None:
            self.expected(f"{label}, an integer")
        return int(match[0])

    def number(self, label: str) -> Number:
        self.skip()
        start = self.offset
        if not self.text.startswith("{", self.offset):
            return self.integer(label)
        name = self.name(label)
        if len(name.pieces) != 1 or not isinstance(name.pieces[0], Affine):
            self.fail(f"{label} is an integer or a placeholder, {{i}}", start)
        return name.pieces[0]

    def entry(self) -> Number | Span:
        start = None if self.starts(":") else self.number("an index")
        if not self.accept(":"):
            if start is None:
                self.expected("an index")
            return start
        stop = (
            None
            if self.starts(":") or self.starts(",") or self.starts("]")
            else self.number("an index")
        )
        if not self.accept(":"):
            return Span(start, stop)
        self.skip()
        place = self.offset
        step = self.integer("a step")
        if step < 1:
            self.fail(f"the step of a slice is positive; got {step}", place)
        return Span(start, stop, step)

    def starts(self, mark: str) -> bool:
        self.skip()
        return self.text.startswith(mark, self.offset)

    def over(self) -> Over:
        match = self.take(_OVER)
        if match is None:
            self.expected("{i} in A:B")
        start = self.integer("the first value")
        self.expect(":")
        stop = self.integer("the end of the values")
        if not 0 <= start <= stop:
            self.fail(
                f"values of a placeholder go from A up to B, both at least 0; got {start}:{stop}"
            )
        return Over(match[1], start, stop)
