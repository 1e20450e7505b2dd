"""A step of training under a choice of layouts: seconds, memory, and what moves.

    seconds = compute, by roofline, of each operator + what the oracle asks for each edge

An edge leads from what a tensor is written as to what an operator reads; backward, from the
gradient that the operator leaves to the one that the tensor wants. A parameter is stored in a
layout of its own: its edge is a gather where it is stored sharded and read whole (FSDP, or ZeRO-3),
and its gradient is reduced into the layout in which it is stored. With a `ShardedUpdate` the
gradient is reduced into the layout of the optimizer's state, and the parameter that it updates is
gathered once a step (ZeRO-2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never, cast

import numpy as np
from numpy.typing import NDArray

from redistrib.partition.graph import Device, Graph
from redistrib.partition.sharding import Sharding
from redistrib.synth.oracle.oracle import Oracle
from redistrib.synth.plan.data import Plan
from redistrib.types.array_type import ArrayType


@dataclass(frozen=True, slots=True)
class ShardedUpdate:
    """The layout of a parameter, and that of its gradient and optimizer state."""

    parameter: ArrayType
    state: ArrayType

    def __str__(self) -> str:
        return f"{self.parameter}, updated as {self.state}"


Option = Sharding | ArrayType | ShardedUpdate
"""Of an operator a sharding; of a tensor that is given its layout, of a parameter also two."""
Choice = Mapping[str, Option]
"""An option for every operator and every tensor that is given, by name."""


@dataclass(frozen=True, slots=True)
class Step:
    """Seconds of compute and of communication, bytes a device, and the plans by tensor and reader.

    A plan of `moves` is for (tensor, operator, "forward" or "backward"), or for (parameter,
    parameter, "update"); those of nothing to do are left out.
    """

    compute: float
    communication: float
    memory: int
    moves: Mapping[tuple[str, str, str], Plan]

    @property
    def seconds(self) -> float:
        """Compute and communication, one after the other."""
        return self.compute + self.communication

    def count(self) -> dict[str, int]:
        """How many collectives of each kind a step has."""
        names = [s.collective for p in self.moves.values() for s in p.steps if s.communicates]
        return {name: names.count(name) for name in sorted({*names})}


class Costs:
    """What options of a graph cost on a mesh: by option and `edge` for a solver, or as a `Step`.

    An option costs its `compute`, and its `update` where it is of a parameter.

    `training` adds the backward pass; `state_bytes` are those of a parameter's gradient and
    optimizer state, for each byte of the parameter. The mesh and the profile are the oracle's.
    """

    def __init__(
        self,
        graph: Graph,
        oracle: Oracle,
        device: Device | None = None,
        *,
        training: bool = True,
        state_bytes: float = 7.0,
    ) -> None:
        self.graph, self.oracle = graph, oracle
        self.device = device or Device()
        self.training, self.state_bytes = training, state_bytes if training else 0.0
        self._priced: dict[tuple[ArrayType, ArrayType], float] = {}

    @property
    def questions(self) -> int:
        """How many moves were priced one by one."""
        return len(self._priced)

    def compute(self, option: Option) -> float:
        """Seconds of an operator on each device, by roofline; backward takes twice as long."""
        if not isinstance(option, Sharding):
            return 0.0
        flops = self.graph.flops(option.operator) / option.ways / self.device.flops
        moved = self.graph.bytes_moved(option.operator) / option.ways / self.device.bandwidth
        return max(flops, moved) * (3 if self.training else 1)

    def update(self, option: Option) -> float:
        """Seconds of gathering an updated parameter from the layout of its state."""
        if not (self.training and isinstance(option, ShardedUpdate)):
            return 0.0
        return self._seconds(option.state, option.parameter)

    def memory(self, name: str, option: Option) -> int:
        """Bytes that a device keeps: a parameter with its state, what backward reads again."""
        if isinstance(option, Sharding):
            return option.output.tile_bytes if self.training else 0
        layout, gradient = self.written(option)
        state = self.state_bytes if name in self.graph.parameters else 0.0
        return int(layout.tile_bytes + gradient.tile_bytes * state)

    def edge(
        self, number: int, writers: Sequence[Option], readers: Sequence[Sharding]
    ) -> NDArray[np.float64]:
        """Seconds of an edge, forward and backward, from each option to each: [writer, reader].

        `number` is that of the input of the readers.
        """
        written, wanted = zip(*map(self.written, writers), strict=True)
        read, gradients = zip(*(self.read(reader, number) for reader in readers), strict=True)
        seconds = self.oracle.cost_matrix(written, read, closed=False)
        if self._trained(readers[0], number):
            seconds = seconds + self.oracle.cost_matrix(gradients, wanted, closed=False).T
        return seconds

    @staticmethod
    def written(option: Option) -> tuple[ArrayType, ArrayType]:
        """What a tensor is written as, and the gradient that it wants."""
        match option:
            case Sharding():
                return option.output, option.output_gradient
            case ShardedUpdate():
                return option.parameter, option.state
            case ArrayType():
                return option, option
            case _:
                assert_never(option)

    @staticmethod
    def read(option: Sharding, number: int) -> tuple[ArrayType, ArrayType]:
        """What an operator reads as an input, and the gradient that it leaves of it."""
        return option.inputs[number], option.input_gradients[number]

    def _moves(self, choice: Choice) -> Iterator[tuple[str, str, str, ArrayType, ArrayType]]:
        """Tensor, reader, the way, and the two types of every edge and update."""
        for tensor, name, number in self.graph.edges():
            reader = cast(Sharding, choice[name])
            written, wanted = self.written(choice[tensor])
            read, gradient = self.read(reader, number)
            yield tensor, name, "forward", written, read
            if self._trained(reader, number):
                yield tensor, name, "backward", gradient, wanted
        for name, option in choice.items():
            if self.training and isinstance(option, ShardedUpdate):
                yield name, name, "update", option.state, option.parameter

    def step(self, choice: Choice, *, shared: bool = False) -> Step:
        """The step of a choice, with its plans.

        Each edge by itself, as a solver prices it; where `shared`, as a compiler runs it: what
        several operators read as one type moves once, and the gradients of a tensor that they leave
        as one type are added before they move. Such a move has the name of its first reader.
        """
        moves: dict[tuple[str, str, str], Plan] = {}
        seen: set[tuple[str, str, ArrayType, ArrayType]] = set()
        for tensor, name, way, src, dst in self._moves(choice):
            if src != dst and not (shared and (tensor, way, src, dst) in seen):
                seen.add((tensor, way, src, dst))
                moves[tensor, name, way] = self.oracle.matrix([src], [dst]).plan(0, 0)
        return Step(
            sum(map(self.compute, choice.values())),
            sum(plan.seconds for plan in moves.values()),
            sum(self.memory(name, option) for name, option in choice.items()),
            moves,
        )

    def seconds(self, choice: Choice) -> float:
        """The seconds of a step, without its plans: the oracle remembers what it was asked."""
        compute = sum(map(self.compute, choice.values()))
        return compute + sum(self._seconds(src, dst) for *_, src, dst in self._moves(choice))

    def _seconds(self, src: ArrayType, dst: ArrayType) -> float:
        """Seconds of a move at the price of `cost_matrix`, which runs no search."""
        if (src, dst) not in self._priced:
            self._priced[src, dst] = float(self.oracle.cost_matrix([src], [dst])[0, 0])
        return self._priced[src, dst]

    def _trained(self, reader: Sharding, number: int) -> bool:
        """Whether an input has a gradient: in training, unless it is given and no parameter."""
        name = self.graph.operator(reader.operator).inputs[number]
        untrained = name not in self.graph.parameters and name in self.graph.given
        return self.training and not untrained
