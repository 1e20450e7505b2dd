"""What the moves of a whole model take: bytes received and sent, bounds, memory over time.

Two arrays of 8 MiB, each on one device, go to a third: that one receives 16 MiB, and its peak is
the 16 MiB of its targets with the scratch of one of them. All figures are those of the worst
device.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from redistrib.models.bounds import Taken, least_bytes
from redistrib.models.loads import Load, load_of
from redistrib.models.memory import LEAST_CHUNK, Memory
from redistrib.models.moves import ModelMoves
from redistrib.models.order import Bytes
from redistrib.models.schedule import narrowest
from redistrib.types.dtypes import itemsize

CHUNK = 64 << 20
"""Bytes of scratch that a move uses at most, where the budget allows it."""


@dataclass(frozen=True, slots=True)
class Loads:
    """Bytes by device: received, sent, and what it receives at least, however it is done."""

    received: Bytes
    sent: Bytes
    least: Bytes


@dataclass(frozen=True)
class ModelFigures(ModelMoves):
    """The moves of all arrays of a model, with what they take. Bytes are per device."""

    @cached_property
    def loads(self) -> Loads:
        """What every device receives and sends, in bytes, in the order of `devices`."""
        place = {device: n for n, device in enumerate(self.devices)}
        received, sent = np.zeros((2, len(place)), np.int64)
        for plan in self.reductions.values():
            positions = [place[device] for device in plan.src.mesh.ids]
            received[positions] += plan.received_bytes
            sent[positions] += plan.sent_bytes
        loads: dict[int, Load] = {}
        crossings = self.crossings  # makes the tiles
        places = {
            id(tiles): np.array([place[device] for device in tiles.ids])
            for tiles in self._memo.tiles.values()
        }
        taken: dict[object, list[Taken]] = {}
        for move in self.moves:
            for step, crossing in zip(move.steps, crossings[move.target], strict=True):
                if crossing is None:
                    continue
                route, source, target, turn = crossing
                if id(route) not in loads:
                    loads[id(route)] = load_of(route)
                load = loads[id(route)].turned(route, turn)
                receivers, senders = places[id(target)], places[id(source)]
                width = itemsize(narrowest(step.copy.dtypes))
                received[receivers] += load.received * width
                assert step.copy.number is not None
                view = Taken(step.copy, receivers, load.received, width)
                taken.setdefault(move.sources[step.copy.number], []).append(view)
                sent[receivers] += load.relayed * width
                sent[senders] += load.sent * width
        return Loads(received, sent, least_bytes(taken, len(place)))

    @property
    def received_bytes(self) -> int:
        """What the worst device takes in over the whole move."""
        return int(self.loads.received.max(initial=0))

    @property
    def sent_bytes(self) -> int:
        """What the worst device gives away over the whole move."""
        return int(self.loads.sent.max(initial=0))

    @property
    def lower_bound_bytes(self) -> int:
        """What the worst device takes in at least, however it is done.

        The elements that its target tiles need and its source tiles do not hold, in the narrowest
        dtype on the way. Of views of one source that may share elements the largest counts alone,
        so that nothing is counted twice.
        """
        return int(self.loads.least.max(initial=0))

    @property
    def seconds(self) -> float:
        """An estimate under the profile: a latency per array, and the bytes of the worst device."""
        link = self.profile.link
        worst = max(self.received_bytes, self.sent_bytes)
        moving = sum(1 for move in self.moves if any(s.copy.number is not None for s in move.steps))
        reducing = sum(plan.seconds for plan in self.reductions.values())
        return reducing + moving * link.latency + worst / link.bandwidth

    @cached_property
    def _memory(self) -> Memory:
        return Memory.of(self.src, self.dst, self.reductions, self.moves, keep=self.keep_sources)

    @property
    def alive_bytes(self) -> tuple[int, ...]:
        """What the worst device holds while each array moves, in order, without scratch."""
        return tuple(int(row.max(initial=0)) for row in self._memory.alive)

    @property
    def peak_bytes(self) -> int:
        """Sources not yet released + targets + scratch, at the worst moment on the worst device."""
        return self._memory.peak(self.chunk_bytes, into_targets=self.into_targets)

    @property
    def least_budget_bytes(self) -> int:
        """The peak with chunks of scratch as small as they get: planning with it succeeds."""
        return self._memory.peak(LEAST_CHUNK, into_targets=self.into_targets)

    def together(self, first: int, last: int) -> tuple[int, int]:
        """Bytes of the worst device where moves `first` to `last` run as one; and its scratch."""
        return self._memory.together(first, last, self.chunk_bytes, into_targets=self.into_targets)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of scratch on a device at a time: as large as the budget allows."""
        chunk = CHUNK
        while self.memory_budget is not None and chunk > LEAST_CHUNK:
            if self._memory.peak(chunk, into_targets=self.into_targets) <= self.memory_budget:
                break
            chunk //= 2
        return chunk

    @property
    def _budget_text(self) -> str:
        text = f"least budget {self.least_budget_bytes}"
        if self.least_budget_bytes > self.order_bound_bytes:
            text += f"; no order needs less than {self.order_bound_bytes}"
        return text

    def __str__(self) -> str:
        irregular = [move.target for move in self.moves if move.irregular]
        unused = self.unused_sources
        lines = [
            f"{len(self.moves)} arrays from {len(self.src)}, {len(self.devices)} devices",
            f"  received   {self.received_bytes} bytes on the worst device "
            f"(bound {self.lower_bound_bytes})",
            f"  sent       {self.sent_bytes} bytes on the worst device",
            f"  peak       {self.peak_bytes} bytes ({self._budget_text})",
            f"  time       {self.seconds * 1e3:.3g} ms under profile {self.profile.name}",
        ]
        if irregular:
            lines.append(
                f"  irregular  {len(irregular)} arrays whose cuts fall inside tiles, such as "
                f"{irregular[0]}"
            )
        if unused:
            lines.append(f"  unused     {len(unused)} sources, such as {unused[0]}")
        return "\n".join(lines)

    @cached_property
    def unused_sources(self) -> tuple[str, ...]:
        """The sources that no target is made from."""
        used = {name for move in self.moves for name, _ in move.sources}
        return tuple(name for name in self.src if name not in used)
