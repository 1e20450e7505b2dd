"""Random expressions over small source arrays; every one of them fits its sources."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from math import prod

from redistrib.models.expression import (
    Expression,
    cast,
    concat,
    pad,
    rearrange,
    source,
    stack,
)

DTYPES = ("f32", "f64", "i32", "f16")
LETTERS = "abcdefghijklmnop"


@dataclass
class RandomMaps:
    """Draws expressions, and the sources that they take, of shape and dtype by name."""

    rng: random.Random
    shapes: dict[str, tuple[tuple[int, ...], str]] = field(default_factory=dict)

    def expression(self, depth: int) -> tuple[Expression, tuple[int, ...], str]:
        """An expression with its shape and dtype."""
        if depth == 0:
            return self.leaf(
                tuple(
                    self.rng.choice((1, 2, 3, 4, 6)) for _ in range(self.rng.choice((1, 2, 2, 3)))
                )
            )
        draw = self.rng.choice(
            (
                self.index,
                self.concat,
                self.stack,
                self.rearrange,
                self.rearrange,
                self.pad,
                self.cast,
            )
        )
        return draw(depth)

    def leaf(
        self, shape: tuple[int, ...], dtype: str | None = None
    ) -> tuple[Expression, tuple[int, ...], str]:
        """A source of this shape: sometimes one that is there already."""
        dtype = dtype or self.rng.choice(DTYPES)
        same = [name for name, known in self.shapes.items() if known == (shape, dtype)]
        if same and self.rng.random() < 0.3:
            return source(self.rng.choice(same)), shape, dtype
        name = f"s{len(self.shapes)}"
        self.shapes[name] = (shape, dtype)
        return source(name), shape, dtype

    def index(self, depth: int) -> tuple[Expression, tuple[int, ...], str]:
        inner, shape, dtype = self.expression(depth - 1)
        entries: list[int | slice] = []
        kept = []
        for n in shape[: self.rng.randint(min(1, len(shape)), len(shape))]:
            if n and self.rng.random() < 0.25 and len(shape) > 1:
                entries.append(self.rng.randrange(n))
                continue
            low = self.rng.randint(0, n)
            high = self.rng.randint(low, n) if self.rng.random() < 0.5 else n
            step = self.rng.choice((1, 1, 2, 3))
            entries.append(slice(low, high, step))
            kept.append(len(range(low, high, step)))
        return inner[tuple(entries)], (*kept, *shape[len(entries) :]), dtype

    def concat(self, depth: int) -> tuple[Expression, tuple[int, ...], str]:
        inner, shape, dtype = self.expression(depth - 1)
        if not shape:
            return inner, shape, dtype
        dim = self.rng.randrange(len(shape))
        other = self.rng.choice((1, 2, 5))
        more, _, _ = self.leaf((*shape[:dim], other, *shape[dim + 1 :]), dtype)
        parts = [inner, more] if self.rng.random() < 0.5 else [more, inner]
        return concat(dim, *parts), (*shape[:dim], shape[dim] + other, *shape[dim + 1 :]), dtype

    def stack(self, depth: int) -> tuple[Expression, tuple[int, ...], str]:
        inner, shape, dtype = self.expression(depth - 1)
        parts = [inner, *(self.leaf(shape, dtype)[0] for _ in range(self.rng.choice((0, 1, 2))))]
        self.rng.shuffle(parts)
        dim = self.rng.randint(0, len(shape))
        return stack(dim, *parts), (*shape[:dim], len(parts), *shape[dim:]), dtype

    def rearrange(self, depth: int) -> tuple[Expression, tuple[int, ...], str]:
        inner, shape, dtype = self.expression(depth - 1)
        names = iter(LETTERS)
        before: list[list[str]] = []
        sizes: dict[str, int] = {}
        for n in shape:
            split = self.rng.choice([d for d in range(1, n + 1) if n % d == 0]) if n else 1
            if n and self.rng.random() < 0.5:
                a, b = next(names), next(names)
                before.append([a, b])
                sizes |= {a: n // split, b: split}
            elif n == 1 and self.rng.random() < 0.5:
                before.append([])
            else:
                a = next(names)
                before.append([a])
                sizes[a] = n
        order = [name for group in before for name in group]
        if len(order) < len(LETTERS) and self.rng.random() < 0.3:
            new = next(names)
            sizes[new] = self.rng.choice((1, 2, 3))
            order.append(new)
        if self.rng.random() < 0.7:
            self.rng.shuffle(order)
        after: list[list[str]] = []
        for name in order:
            if after and self.rng.random() < 0.4:
                after[-1].append(name)
            else:
                after.append([name])
        pattern = " -> ".join(
            " ".join(f"({' '.join(group)})" for group in side) for side in (before, after)
        )
        result = tuple(prod(sizes[name] for name in group) for group in after)
        return rearrange(inner, pattern, **sizes), result, dtype

    def pad(self, depth: int) -> tuple[Expression, tuple[int, ...], str]:
        inner, shape, dtype = self.expression(depth - 1)
        if not shape:
            return inner, shape, dtype
        dim = self.rng.randrange(len(shape))
        size = shape[dim] + self.rng.choice((0, 1, 3))
        return pad(inner, dim, size), (*shape[:dim], size, *shape[dim + 1 :]), dtype

    def cast(self, depth: int) -> tuple[Expression, tuple[int, ...], str]:
        inner, shape, _ = self.expression(depth - 1)
        dtype = self.rng.choice(DTYPES)
        return cast(inner, dtype), shape, dtype
