"""The checker of model plans a second time: element by element, on numbers.

Every source element gets a number, and with it the dtypes that it has been through; the map's
meaning, by numpy, says which number each target element wants, cast how. Then every device's
schedule is replayed on numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
from numpy.typing import NDArray

from redistrib.models.interpret import NumpyArrays, interpret
from redistrib.models.moves import PHASES, ModelMoves, Move
from redistrib.models.segments import AnyType
from redistrib.models.transfers import Transfer
from redistrib.types.array_type import ArrayType

Numbers = NDArray[np.int64]
"""Elements as number * CHAINS + the number of the chain of dtypes that they have been through."""
CHAINS = 1 << 32
ZERO = 0
"""A zero that a map pads with."""
IDENTITY = -2
UNWRITTEN = -3


class WrongError(Exception):
    """What a schedule does is wrong."""


class _Casts(NumpyArrays):
    """The kind of array whose elements remember which they are, and their casts."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[str, ...], int] = {}

    def dtype_of(self, array: Numbers) -> str:
        del array
        return "i64"

    def cast(self, array: Numbers, dtype: str) -> Numbers:
        chains = list(self.numbers)
        result = np.array(array)
        for number in np.unique(array[array > 0] % CHAINS).tolist():
            if chains[number][-1] != dtype:
                longer = self.number((*chains[number], dtype))
                result[(array > 0) & (array % CHAINS == number)] += longer - number
        return result

    def number(self, chain: tuple[str, ...]) -> int:
        """The number of a chain of dtypes."""
        return self.numbers.setdefault(chain, len(self.numbers))


def replay(plan: ModelMoves) -> None:
    """Replay the schedules of all devices on numbers. Raises WrongError for whatever is wrong."""
    casts = _Casts()
    first = _numbers(plan, casts)
    wanted = _wanted(plan, first, casts)
    held = {name: _tiles(first[name], plan.source_type(name)) for name in plan.src}
    totals = {device: [0, 0] for device in plan.devices}
    made: dict[str, dict[int, Numbers]] = {}
    released: set[str] = set()
    for n, move in enumerate(plan.moves):
        if move.target in made:
            raise WrongError(f"the target {move.target} is made twice")
        if used := released & {name for name, _ in move.sources}:
            raise WrongError(f"{move.target}: {min(used)} is released before its last use")
        made[move.target] = _replayed(plan, move, held, made, totals, casts)
        target = plan.dst[move.target]
        for position, device in enumerate(target.mesh.ids):
            want = _tile(wanted[move.target], target, position)
            got = made[move.target][device]
            if not np.array_equal(want, got):
                place = tuple(int(i) for i in np.argwhere(want != got)[0])
                raise WrongError(
                    f"{move.target}: element {place} of device {device} does not get its value",
                )
        later = {name for m in plan.moves[n + 1 :] for name, _ in m.sources}
        if not plan.keep_sources:
            released |= {name for name, _ in move.sources} - later
    if missing := plan.dst.keys() - made.keys():
        raise WrongError(f"nothing makes the target {min(missing)}")
    _check_totals(plan, totals)


def _numbers(plan: ModelMoves, casts: _Casts) -> dict[str, Numbers]:
    """A number for every element of every source."""
    numbers, start = {}, 1
    for name, t in plan.src.items():
        size = prod(t.shape)
        own = np.arange(start, start + size, dtype=np.int64).reshape(t.shape)
        numbers[name] = np.asarray(own * CHAINS + casts.number((t.dtype,)))
        start += size
    return numbers


def _wanted(plan: ModelMoves, numbers: Mapping[str, Numbers], casts: _Casts) -> dict[str, Numbers]:
    """The number that each element of each target wants: the map on numbers."""
    targets = plan.weights.targets(numbers)
    return {
        name: interpret(made.rule.expression, numbers.__getitem__, casts, made.binding)
        if (made := targets.get(name))
        else numbers[name]
        for name in plan.dst
    }


def _replayed(
    plan: ModelMoves,
    move: Move,
    held: Mapping[str, Mapping[int, Numbers]],
    made: Mapping[str, Mapping[int, Numbers]],
    totals: dict[int, list[int]],
    casts: _Casts,
) -> dict[int, Numbers]:
    """The numbers that a target's tiles get."""
    target = plan.dst[move.target]
    tiles = {
        device: np.full(target.tile_shape_at(position), UNWRITTEN, np.int64)
        for position, device in enumerate(target.mesh.ids)
    }
    expected: dict[Transfer, int] = {}
    by_receiver: list[Transfer] = []
    for device in plan.devices:
        for transfer in plan.transfers(move, device):
            if transfer.receiver == device:
                by_receiver.append(transfer)
                totals[device][0] += transfer.wire_bytes
            if transfer.sender == device and transfer.receiver != device:
                expected[transfer] = expected.get(transfer, 0) + 1
                totals[device][1] += transfer.wire_bytes
    for phase in range(PHASES):
        for transfer in (t for t in by_receiver if t.phase == phase):
            if transfer.sender not in (None, transfer.receiver) and not expected.pop(transfer, 0):
                raise WrongError(
                    f"{move.target}: device {transfer.receiver} waits for what device "
                    f"{transfer.sender} does not send",
                )
            sources = {**made, move.target: tiles} if phase else held
            _write(plan, move, transfer, tiles, sources, casts)
    if expected:
        transfer = next(iter(expected))
        raise WrongError(
            f"{move.target}: device {transfer.sender} sends what device {transfer.receiver} does "
            f"not wait for",
        )
    for device, tile in tiles.items():
        if (tile == UNWRITTEN).any():
            raise WrongError(
                f"{move.target}: {int((tile == UNWRITTEN).sum())} elements of device {device} get "
                f"no value",
            )
    return tiles


def _write(
    plan: ModelMoves,
    move: Move,
    transfer: Transfer,
    tiles: Mapping[int, Numbers],
    held: Mapping[str, Mapping[int, Numbers]],
    casts: _Casts,
) -> None:
    places = np.full(1, transfer.view.target_offset, np.int64)
    origins = np.full(1, transfer.view.source_offset, np.int64)
    for count, target_stride, source_stride in transfer.view.runs:
        steps = np.arange(count)
        places = (places[:, None] + steps * target_stride).reshape(-1)
        origins = (origins[:, None] + steps * source_stride).reshape(-1)
    tile = tiles[transfer.receiver].reshape(-1)
    right = places.min(initial=0) >= 0 and places.max(initial=-1) < tile.size
    if not right or (tile[places] != UNWRITTEN).any() or len(np.unique(places)) < len(places):
        raise WrongError(
            f"{move.target}: device {transfer.receiver} writes outside its tile, or twice",
        )
    _check_dtypes(plan, move, transfer)
    if transfer.sender is None:
        tile[places] = IDENTITY if transfer.reduction else ZERO
        return
    source = held.get(str(transfer.source), {}).get(transfer.sender)
    if source is None or not 0 <= origins.min(initial=0) <= origins.max(initial=0) < source.size:
        raise WrongError(
            f"{move.target}: device {transfer.sender} does not have what it sends of "
            f"{transfer.source}",
        )
    values = source.reshape(-1)[origins]
    for dtype in transfer.dtypes:
        values = casts.cast(values, dtype)
    tile[places] = values


def _check_dtypes(plan: ModelMoves, move: Move, transfer: Transfer) -> None:
    target = plan.dst[move.target].dtype
    first = target
    if transfer.source is not None:
        given = plan.dst if transfer.phase else plan.src
        first = given[transfer.source].dtype
    if (transfer.dtypes[0], transfer.dtypes[-1]) != (first, target):
        raise WrongError(
            f"{move.target}: elements go from {first} to {target}; a transfer says "
            f"{' to '.join(transfer.dtypes)}",
        )


def _tiles(array: Numbers, t: AnyType) -> dict[int, Numbers]:
    return {device: _tile(array, t, position) for position, device in enumerate(t.mesh.ids)}


def _tile(array: Numbers, t: AnyType, position: int) -> Numbers:
    """What a position holds of numbers; the identity where a partial type has no value."""
    if isinstance(t, ArrayType):
        tile = array[np.ix_(*t.tile(position))].reshape(t.tile_shape_at(position))
        away = any(t.digit_coordinate(digit, position) for digit in t.partial)
        return np.full_like(tile, IDENTITY) if away else tile
    starts = np.cumsum([0, *(part.shape[t.dim] for part in t.parts)])
    pieces = [
        _tile(np.take(array, np.arange(a, b), axis=t.dim), part, position)
        for part, a, b in zip(t.parts, starts, starts[1:], strict=False)
    ]
    return np.concatenate(pieces, axis=t.dim)


def _check_totals(plan: ModelMoves, totals: Mapping[int, list[int]]) -> None:
    received, sent = ({device: total[k] for device, total in totals.items()} for k in (0, 1))
    for reduction in plan.reductions.values():
        for device in reduction.src.mesh.ids:
            received[device] += reduction.received_bytes
            sent[device] += reduction.sent_bytes
    for name, found in (("received_bytes", received), ("sent_bytes", sent)):
        if getattr(plan, name) != max(found.values(), default=0):
            raise WrongError(
                f"{name} is {max(found.values(), default=0)}; the plan has {getattr(plan, name)}"
            )
