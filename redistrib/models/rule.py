"""Rules of a weight map: a target, the expression that makes it, and for which placeholders.

    layers.{i}.w13 = stack(0, {e} in 0:2: concat(0, experts.{i}.{e}.gate, experts.{i}.{e}.up))

With the sources experts.0.0.gate, experts.0.0.up, experts.0.1.gate and experts.0.1.up there is one
binding, `{"i": 0}`, and so one target, layers.0.w13.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import Any

from redistrib.errors import WeightMapError
from redistrib.models.expression import (
    Expression,
    Over,
    Position,
    free_placeholders,
    source_names,
    sources,
)
from redistrib.models.names import Binding, Name
from redistrib.text import brief, is_kind

MAX_TARGETS = 1 << 18
"""That one rule makes: more are a range by mistake."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A target and the expression that makes it, for all values of its placeholders.

    `ranges` give the values of placeholders that no source name has, or limit those that one has.
    """

    target: Name
    expression: Expression
    ranges: tuple[Over, ...] = ()
    position: Position | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        self._check_kinds()
        needed = free_placeholders(self.expression)
        ranged = {over.placeholder for over in self.ranges}
        named = frozenset[str]().union(*(s.name.placeholders for s in sources(self.expression)))
        if open_ := (needed | self.target.placeholders) - (named & needed) - ranged:
            name = min(open_)
            raise self.error(
                f"no source name of the rule for {self.target} has {{{name}}}, so it needs a "
                f"range: ... for {{{name}}} in 0:61",
                placeholder=name,
            )
        if lost := (needed | ranged) - self.target.placeholders:
            name = min(lost)
            raise self.error(
                f"a target is made once: its name has all placeholders of its rule; {self.target} "
                f"lacks {{{name}}}",
                placeholder=name,
            )

    def _check_kinds(self) -> None:
        if not is_kind(self.target, Name) or not is_kind(self.expression, Expression):
            raise WeightMapError(
                f"a rule is a name and an expression; got {brief(self.target)} and "
                f"{brief(self.expression)}"
            )
        ranged = [over.placeholder for over in self.ranges]
        if len(set(ranged)) < len(ranged):
            raise self.error("a placeholder has one range in a rule")
        values = prod(over.stop - over.start for over in self.ranges)
        if values > MAX_TARGETS:
            raise self.error(
                f"a rule makes at most {MAX_TARGETS} targets; its ranges have {values} values"
            )

    def error(self, message: str, **values: Any) -> WeightMapError:
        """An error about this rule, at its line where it has one."""
        if self.position is None:
            return WeightMapError(message, **values)
        line, column = self.position
        return WeightMapError(
            f"line {line}, column {column}: {message}", **values, line=line, column=column
        )

    def bindings(self, names: Iterable[str]) -> Iterator[dict[str, int]]:
        """The bindings under which all sources of the rule are among the names, ascending.

        Raises WeightMapError where the rule has ranges and a source is missing.
        """
        have = names if isinstance(names, set | frozenset | dict) else set(names)
        for binding in self._candidates(have):
            missing = next((name for name in self.sources(binding) if name not in have), None)
            if missing is None:
                yield binding
            elif self.ranges:
                raise self.error(
                    f"a rule with a range makes all its targets; {self.target.text(binding)} "
                    f"needs {missing}, which is not there",
                    source=missing,
                )

    def sources(self, binding: Binding) -> list[str]:
        """The names of the sources under a binding, each once."""
        return list(dict.fromkeys(source_names(self.expression, binding)))

    def _candidates(self, names: Iterable[str]) -> list[dict[str, int]]:
        """Bindings that some source of each kind allows; the ranges alone where they say all."""
        spans = [
            [(over.placeholder, n) for n in range(over.start, over.stop)] for over in self.ranges
        ]
        joined: list[dict[str, int]] = [dict(values) for values in product(*spans)]
        needed = free_placeholders(self.expression)
        for template in dict.fromkeys(leaf.name for leaf in sources(self.expression)):
            wanted = template.placeholders & needed
            if not wanted - set(joined[0] if joined else ()):
                continue
            order = sorted(wanted)
            matches = {tuple(match[k] for k in order): None for match in template.matches(names)}
            joined = self._join(joined, [dict(zip(order, match, strict=True)) for match in matches])
        return sorted(joined, key=lambda binding: sorted(binding.items()))

    def _join(
        self, left: list[dict[str, int]], right: list[dict[str, int]]
    ) -> list[dict[str, int]]:
        """All pairs of bindings that agree, as one."""
        if not left or not right:
            return []
        shared = sorted(left[0].keys() & right[0].keys())
        by_key: dict[tuple[int, ...], list[dict[str, int]]] = {}
        for binding in right:
            by_key.setdefault(tuple(binding[k] for k in shared), []).append(binding)
        agreeing = [by_key.get(tuple(binding[k] for k in shared), []) for binding in left]
        if (count := sum(map(len, agreeing))) > MAX_TARGETS:
            raise self.error(f"a rule makes at most {MAX_TARGETS} targets; got {count}")
        return [{**a, **b} for a, bs in zip(left, agreeing, strict=True) for b in bs]

    def __str__(self) -> str:
        ranges = f" for {', '.join(map(str, self.ranges))}" if self.ranges else ""
        return f"{self.target} = {self.expression}{ranges}"


@dataclass(frozen=True, slots=True)
class Target:
    """One array that a map makes: its name, its rule, and the values of the rule's placeholders."""

    name: str
    rule: Rule
    binding: dict[str, int]
