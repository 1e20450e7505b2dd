"""Weight maps: how the parameters of one program are made from those of another.

    >>> w = WeightMap.parse('''
    ...     layers.{i}.qkv = concat(0, layers.{i}.q, layers.{i}.k, layers.{i}.v)
    ...     lm_head        = pad(embed, 0, 8)   # the vocabulary, rounded up
    ... ''')
    >>> shapes = {f"layers.{i}.{x}": (2, 3) for i in range(2) for x in "qkv"} | {"embed": (5, 3)}
    >>> made = w({name: np.ones(shape) for name, shape in shapes.items()})
    >>> {name: array.shape for name, array in made.items()}
    {'layers.0.qkv': (6, 3), 'layers.1.qkv': (6, 3), 'lm_head': (8, 3)}

A map is a list of rules. A rule makes the targets for which all its sources exist, one for each
binding of its placeholders; of several rules for one target the first holds. A map knows no
layouts: its meaning is numpy's, on whole arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redistrib.errors import WeightMapError
from redistrib.models.expression import Expression
from redistrib.models.interpret import NumpyArrays, Shapes, interpret, shapes_of
from redistrib.models.names import Name
from redistrib.models.rule import Rule, Target
from redistrib.models.text import parse_rules
from redistrib.text import brief, is_kind


class WeightMap:
    """Rules that make target arrays from source arrays; `str` gives the text, `parse` reads it.

    Built from target names and expressions, or from rules:

    >>> from redistrib.models.expression import concat, source
    >>> print(WeightMap({"kv": concat(0, source("k"), source("v"))}))
    kv = concat(0, k, v)
    """

    def __init__(self, rules: Mapping[str, Expression] | Iterable[Rule] = ()) -> None:
        if isinstance(rules, Mapping):
            rules = [Rule(Name.parse(name), expression) for name, expression in rules.items()]
        if not isinstance(rules, Iterable):
            raise WeightMapError(f"a weight map is made of rules; got {brief(rules)}", rule=rules)
        self.rules = tuple(rules)
        for rule in self.rules:
            if not isinstance(rule, Rule):
                raise WeightMapError(f"a weight map is made of rules; got {brief(rule)}", rule=rule)

    @classmethod
    def parse(cls, text: str) -> WeightMap:
        """The map in a text (the grammar: docs/models.md).

        Raises WeightMapError with the line and column of what is wrong.
        """
        return cls(parse_rules(text))

    def targets(self, names: Iterable[str]) -> dict[str, Target]:
        """The arrays that the map makes where sources of these names exist, by name.

        Raises WeightMapError where a rule with a range lacks a source.
        """
        have = frozenset(_names(names))
        result: dict[str, Target] = {}
        for rule in self.rules:
            for binding in rule.bindings(have):
                name = rule.target.text(binding)
                result.setdefault(name, Target(name, rule, binding))
        return result

    def __call__(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """All targets, from all source arrays by name: what the map means.

        Raises WeightMapError for arrays that do not fit the rules.
        """
        if not isinstance(arrays, Mapping):
            raise WeightMapError(f"arrays are given by name; got {brief(arrays)}", arrays=arrays)
        sources_, targets, name = {}, {}, ""
        try:
            for name, array in arrays.items():
                sources_[name] = np.asarray(array)
            for name, target in self.targets(sources_).items():
                targets[name] = interpret(
                    target.rule.expression, sources_.__getitem__, NumpyArrays(), target.binding
                )
        except (MemoryError, TypeError, ValueError) as error:  # of numpy
            raise WeightMapError(f"numpy does not make {name}: {error}", name=name) from error
        return targets

    def shapes(
        self, shapes: Mapping[str, tuple[tuple[int, ...], object]]
    ) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of all targets, from those of all sources. Raises WeightMapError."""
        sources = shapes_of(shapes)
        targets = {
            name: interpret(target.rule.expression, sources.__getitem__, Shapes(), target.binding)
            for name, target in self.targets(sources).items()
        }
        return {name: (shape.shape, shape.dtype) for name, shape in targets.items()}

    def unused(self, names: Iterable[str]) -> list[str]:
        """The sources that no target is made from."""
        names = _names(names)
        used = {
            source
            for target in self.targets(names).values()
            for source in target.rule.sources(target.binding)
        }
        return [name for name in names if name not in used]

    def __str__(self) -> str:
        return "\n".join(map(str, self.rules))

    def __repr__(self) -> str:
        return f"WeightMap.parse({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WeightMap) and self.rules == other.rules

    def __hash__(self) -> int:
        return hash(self.rules)


def _names(values: Iterable[str]) -> list[str]:
    """The names of arrays as a list. Raises WeightMapError unless they are texts."""
    several = is_kind(values, Iterable) and not is_kind(values, str)
    names = list(values) if several else []
    if not several or not all(isinstance(name, str) for name in names):
        raise WeightMapError(f"names of arrays are texts; got {brief(values)}", names=values)
    return names
