"""Moves as one operator, so that torch.compile has them in its graph, `fullgraph=True` too.

The operator takes this rank's tile and the number of a move, and runs it as it runs outside of a
graph: the compiler sees the shape and dtype of the result, and nothing of the messages. A graph has
only the number, so what is traced with it is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

import torch

Tensor = Any


class InGraph:
    """A move of this rank's tile that a graph may hold.

    run: makes the tile of the target, of `shape` and `dtype`. transposed: gives the move of the
    gradient; without it there is none.
    """

    def __init__(
        self,
        run: Callable[[Tensor], Tensor],
        shape: tuple[int, ...],
        dtype: Any,
        transposed: Callable[[], InGraph] | None = None,
    ) -> None:
        self.run, self.shape, self.dtype, self.transposed = run, shape, dtype, transposed
        self.number = next(_NUMBERS)
        _MOVES[self.number] = self


_NUMBERS = count()
_MOVES: WeakValueDictionary[int, InGraph] = WeakValueDictionary()
_KEPT: dict[int, InGraph] = {}


def registered(graph: InGraph) -> int:
    """Register a move, so that graphs may run it by its number; that number."""
    _KEPT[graph.number] = graph
    return graph.number


@torch.library.custom_op("redistrib::move", mutates_args=())  # type: ignore[untyped-decorator]
def move(tile: torch.Tensor, number: int) -> torch.Tensor:
    """The tile of the target, in memory of its own."""
    result: torch.Tensor = _MOVES[number].run(tile)
    return result.clone() if result.data_ptr() == tile.data_ptr() else result


@move.register_fake  # type: ignore[untyped-decorator]
def _(tile: torch.Tensor, number: int) -> torch.Tensor:
    return tile.new_empty(_MOVES[number].shape, dtype=_MOVES[number].dtype)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    ctx.move = _MOVES[inputs[1]]


def _gradient(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
    transposed = ctx.move.transposed
    return (None if transposed is None else move(gradient, registered(transposed()))), None


move.register_autograd(_gradient, setup_context=_remember)
