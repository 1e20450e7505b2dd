"""The transfers of one move, of all devices, in groups that differ in devices and offsets alone.

Four devices that each take a row of `w: f32[4{x}, 6]` from the others have one group, of 12 rows

    sender  receiver  target offset  source offset
         0         1              0              0
         0         2              0              0  ...

and another for what each keeps. Both sides of a transfer must have it: what devices wait for is
compared with what others send.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from redistrib.errors import CheckError
from redistrib.models.coverage import Strided, strided
from redistrib.models.moves import ModelMoves, Move
from redistrib.models.segments import AnyType
from redistrib.models.transfers import Transfer
from redistrib.types.mesh import Mesh

Numbers = NDArray[np.int64]
SENDS, RECEIVES = 0, 1
COLUMNS = "sends", "receives"


class Group:
    """Transfers that differ in their devices and offsets alone: a row of `columns` each.

    Columns: sender (-1 for none), receiver, target offset, source offset.
    """

    def __init__(self, like: Transfer, columns: Numbers) -> None:
        self.like = like
        self.columns = columns
        self._positions: dict[tuple[int, Mesh], Numbers] = {}

    @property
    def senders(self) -> Numbers:
        """The device that each is from; -1 for a fill."""
        return self.columns[:, SENDS]

    @property
    def receivers(self) -> Numbers:
        """The device that each is to."""
        return self.columns[:, RECEIVES]

    @property
    def crossing(self) -> Numbers:
        """The rows that go from one device to another."""
        rows: Numbers = self.columns[(self.senders >= 0) & (self.senders != self.receivers)]
        return rows

    def positions(self, t: AnyType, column: int) -> Numbers:
        """The positions of senders or receivers on the mesh of a type. Raises CheckError."""
        key = column, t.mesh
        if key not in self._positions:
            devices, ids = self.columns[:, column], np.array(t.mesh.ids)
            order = np.argsort(ids)
            place = np.searchsorted(ids, devices, sorter=order)
            positions = order[np.minimum(place, len(ids) - 1)]
            if (odd := devices[ids[positions] != devices]).size:
                raise CheckError(
                    f"{self.like.target}: device {odd[0]} {COLUMNS[column]} and is not on the mesh "
                    f"of {t}; it does not have what it sends",
                    target=self.like.target,
                )
            self._positions[key] = positions
        return self._positions[key]

    def written(self) -> Iterator[tuple[int, Strided]]:
        """Receiver, and what is written there, unless that is nothing."""
        if self.like.view.size:
            _, runs = strided(0, [(n, t) for n, t, _ in self.like.view.runs])
            for device, start in zip(*self.columns[:, 1:3].T.tolist(), strict=True):
                yield device, (start, runs)

    def read(self) -> Iterator[tuple[int, Strided]]:
        """Sender, and what is read there, each element once."""
        _, runs = strided(0, [(n, s) for n, _, s in self.like.view.runs if s])
        for device, start in zip(*self.columns[:, ::3].T.tolist(), strict=True):
            yield device, (start, runs)


class _Side(NamedTuple):
    """Columns of alike transfers, as receivers and as senders list them: four numbers each."""

    incoming: array[int]
    outgoing: array[int]


def collected(plan: ModelMoves, move: Move, most: int) -> tuple[list[Group], int]:
    """What all devices take in or fill for a move, and how many transfers that are.

    Raises CheckError where a sender does not have one, and for more than so many: at once where the
    first and the last device of the target's mesh take so many that all will.
    """
    ids = plan.dst[move.target].mesh.ids
    least = min(sum(t.receiver == n for t in plan.transfers(move, n)) for n in (ids[0], ids[-1]))
    if least * len(ids) > most:
        raise _too_many(move, least * len(ids), most)
    rows: dict[object, tuple[Transfer, _Side]] = {}
    count = 0
    for device in plan.devices:
        for transfer in plan.transfers(move, device):
            sender, receiver, target, source, view, dtypes, phase, reduction = transfer
            start, origin, runs = view
            key = sender is None, target, source, runs, dtypes, phase, reduction
            if key not in rows:
                rows[key] = transfer, _Side(array("q"), array("q"))
            incoming, outgoing = rows[key][1]
            if receiver == device:
                incoming.extend((-1 if sender is None else sender, receiver, start, origin))
                count += 1
            elif sender == device:
                outgoing.extend((sender, receiver, start, origin))
        if count > most:
            raise _too_many(move, count, most)
    groups = []
    for transfer, (incoming, outgoing) in rows.values():
        group, sent = Group(transfer, _columns(incoming)), _columns(outgoing)
        expected = group.crossing
        if not np.array_equal(_sorted(expected), _sorted(sent)):
            raise CheckError(
                f"{move.target}: what devices wait for of {transfer.source} is not what others "
                f"send: {len(expected)} transfers against {len(sent)}",
                target=move.target,
            )
        groups.append(group)
    return groups, count


def _too_many(move: Move, count: int, most: int) -> CheckError:
    return CheckError(
        f"{move.target}: its devices have {count} transfers or more; they are followed one by one, "
        f"and {most} are left: the same move on fewer devices can be checked",
        target=move.target,
    )


def _columns(numbers: array[int]) -> Numbers:
    return np.frombuffer(numbers, np.int64).reshape(-1, 4)


def _sorted(columns: Numbers) -> Numbers:
    """The rows in an order that depends on them alone."""
    return columns[np.lexsort(columns.T)]
