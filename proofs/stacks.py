"""Programs on stacks of axes, symbolically: what a rewrite rule of the paper is about.

A dimension is a stack of axes, minor-most on top, and the tile under it. gather(i, a) pops a off
stack i; cut(i, b), a slice, pushes b; move(i, j, a), an all_to_all, does both; swap_tops,
replace_top and swap_within are permutes. Stacks and sizes are symbolic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from proofs.harness import Goal, Term, z3

Int = z3.IntSort()
Stack = z3.Datatype("Stack")
Stack.declare("empty")
Stack.declare("push", ("top", Int), ("under", z3.DatatypeSort("Stack")))
Stack = Stack.create()
size = z3.Function("size", Int, Int)
a, b, c, d, r = z3.Ints("a b c d r")


@dataclass
class State:
    """Stacks and tiles of dimensions i, j, k, which axes are used, and the tiles seen so far."""

    stacks: dict[str, Term]
    tiles: dict[str, Term]
    used: Term
    legal: list[Any] = field(default_factory=list)
    peaks: list[Term] = field(default_factory=list)

    def seen(self) -> State:
        """Note the tile of the whole array."""
        total = 1
        for tile in self.tiles.values():
            total = total * tile
        self.peaks.append(total)
        return self


Step = Callable[[State], None]


def gather(i: str, axis: Term) -> Step:
    """Pop `axis` off stack i; the tile grows."""

    def run(state: State) -> None:
        stack = state.stacks[i]
        state.legal += [Stack.is_push(stack), Stack.top(stack) == axis]
        state.stacks[i] = Stack.under(stack)
        state.tiles[i] = state.tiles[i] * size(axis)
        state.used = z3.Store(state.used, axis, False)
        state.seen()

    return run


def cut(i: str, axis: Term, quotient: Term) -> Step:
    """slice: push a free axis on stack i; the tile is |axis| times the quotient."""

    def run(state: State) -> None:
        state.legal += [z3.Not(state.used[axis]), state.tiles[i] == size(axis) * quotient]
        state.stacks[i] = Stack.push(axis, state.stacks[i])
        state.tiles[i] = quotient
        state.used = z3.Store(state.used, axis, True)
        state.seen()

    return run


def move(i: str, j: str, axis: Term, quotient: Term) -> Step:
    """all_to_all: pop `axis` off stack i and push it on stack j."""

    def run(state: State) -> None:
        stack = state.stacks[i]
        state.legal += [Stack.is_push(stack), Stack.top(stack) == axis]
        state.legal += [state.tiles[j] == size(axis) * quotient]
        state.stacks[i] = Stack.under(stack)
        state.stacks[j] = Stack.push(axis, state.stacks[j])
        state.tiles[i] = state.tiles[i] * size(axis)
        state.tiles[j] = quotient
        state.seen()

    return run


def swap_tops(i: str, j: str) -> Step:
    """Exchange the tops, of one size, of two stacks."""

    def run(state: State) -> None:
        first, second = state.stacks[i], state.stacks[j]
        state.legal += [Stack.is_push(first), Stack.is_push(second)]
        state.legal += [size(Stack.top(first)) == size(Stack.top(second))]
        state.stacks[i] = Stack.push(Stack.top(second), Stack.under(first))
        state.stacks[j] = Stack.push(Stack.top(first), Stack.under(second))
        state.seen()

    return run


def replace_top(i: str, old: Term, new: Term) -> Step:
    """Put a free axis of its size in the place of the top of stack i."""

    def run(state: State) -> None:
        stack = state.stacks[i]
        state.legal += [Stack.is_push(stack), Stack.top(stack) == old, size(old) == size(new)]
        state.legal += [z3.Not(state.used[new])]
        state.stacks[i] = Stack.push(new, Stack.under(stack))
        state.used = z3.Store(z3.Store(state.used, old, False), new, True)
        state.seen()

    return run


def swap_within(i: str) -> Step:
    """Exchange the two top axes of stack i."""

    def run(state: State) -> None:
        stack = state.stacks[i]
        below = Stack.under(stack)
        state.legal += [Stack.is_push(stack), Stack.is_push(below)]
        lower = Stack.push(Stack.top(stack), Stack.under(below))
        state.stacks[i] = Stack.push(Stack.top(below), lower)
        state.seen()

    return run


def run(steps: Sequence[Step]) -> State:
    """The state after a program, from any stacks and tiles."""
    stacks = {i: z3.Const(f"stack_{i}", Stack) for i in "ijk"}
    tiles = {i: z3.Int(f"tile_{i}") for i in "ijk"}
    state = State(stacks, tiles, z3.Array("used", Int, z3.BoolSort())).seen()
    for step in steps:
        step(state)
    return state


def rule(left: Sequence[Step], right: Sequence[Step], *extra: Any) -> Goal:
    """The obligation of a rewrite rule."""
    before, after = run(left), run(right)
    axes = [a, b, c, d, r]
    facts = [*before.legal, *extra, *(size(axis) >= 2 for axis in axes)]
    facts += [z3.Int(f"tile_{i}") >= 1 for i in "ijk"]
    # What stands in a stack is an axis, and used; the two on top are enough.
    used = z3.Array("used", Int, z3.BoolSort())
    for stack in (z3.Const(f"stack_{i}", Stack) for i in "ijk"):
        for place in (stack, Stack.under(stack)):
            exists = z3.And(Stack.is_push(stack), Stack.is_push(place))
            top = Stack.top(place)
            facts.append(z3.Implies(exists, z3.And(used[top], size(top) >= 2)))
    same = [before.stacks[i] == after.stacks[i] for i in "ijk"]
    same += [before.tiles[i] == after.tiles[i] for i in "ijk"]
    axis = z3.Int("axis")
    same.append(before.used[axis] == after.used[axis])
    within = [z3.Or([tile <= peak for peak in before.peaks]) for tile in after.peaks]
    return Goal(facts, z3.And(*after.legal, *same, *within))
