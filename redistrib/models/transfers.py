"""Transfers, and the schedule of a device: what a transport needs of a plan, and nothing else.

A transport moves bytes and decides nothing. What crosses is a strided view of one row-major tile;
it lands as a strided view of another. The same schedule serves MPI, torch, files and movers of
others (as JSON, or as lists of contiguous descriptors). The left half of a tile of 4 rows of 6,
from device 0 to the tile of 4 rows of 3 on device 5, is one transfer of 48 bytes:

>>> view = View(target_offset=0, source_offset=0, runs=((4, 3, 6), (3, 1, 1)))
>>> transfer = Transfer(0, 5, "t", "w", view, ("f32",))
>>> transfer.wire_bytes, transfer.phase
(48, 0)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, product
from math import prod
from typing import Any, NamedTuple

from redistrib.errors import BackendError
from redistrib.models.schedule import narrowest
from redistrib.models.tile_views import View
from redistrib.types.dtypes import itemsize

MAX_DESCRIPTORS = 1 << 20
"""Contiguous runs of one transfer that are listed: a transposed matrix has one per element."""


class Transfer(NamedTuple):
    """One strided view of a target tile, and where it comes from.

    Phase 0 is from the sources of the model; in phase 1 the sender passes on what it has of the
    target `source`; in phase 2 a device takes from another target of its own. No sender: a fill,
    with zeros, or with the identity of `reduction`. `dtypes` are those of the source and of each
    cast on the way. Offsets and strides of the view are in elements of row-major tiles.
    """

    sender: int | None
    receiver: int
    target: str
    source: str | None
    view: View
    dtypes: tuple[str, ...]
    phase: int = 0
    reduction: str | None = None

    @property
    def wire(self) -> str:
        """The dtype in which elements cross: the narrowest of the chain, the first of equals."""
        return narrowest(self.dtypes)

    @property
    def wire_bytes(self) -> int:
        """What crosses a wire; 0 for what a device has itself."""
        if self.sender is None or self.sender == self.receiver:
            return 0
        return self.view.distinct * itemsize(self.wire)

    def place(self) -> tuple[object, ...]:
        """What orders the transfers of a move between two devices, on both of them."""
        return self.phase, self.view.target_offset, self.view.runs, str(self.source)

    def cut(self, most: int) -> Iterator[Transfer]:
        """The transfer in pieces of at most so many bytes on a wire, or of one element.

        >>> view = View(0, 0, ((3, 8, 4), (4, 1, 1)))
        >>> whole = Transfer(0, 1, "t", "s", view, ("f32",))
        >>> [(piece.view.source_offset, piece.wire_bytes) for piece in whole.cut(40)]
        [(0, 32), (8, 16)]
        """
        view, bytes_ = self.view, self.view.distinct * itemsize(self.wire)
        place = next((k for k, (n, _, source) in enumerate(view.runs) if n > 1 and source), None)
        if bytes_ <= most or place is None:
            yield self
            return
        count, target, source = view.runs[place]
        rows = max(1, most // (bytes_ // count))
        for start in range(0, count, rows):
            run = min(rows, count - start), target, source
            runs = (*view.runs[:place], run, *view.runs[place + 1 :])
            offsets = view.target_offset + start * target, view.source_offset + start * source
            yield from self._replace(view=View(*offsets, runs)).cut(most)


@dataclass(frozen=True, slots=True)
class Schedule:
    """All transfers of a device, in order: as a sequence, as JSON, or as descriptors."""

    device: int
    transfers: tuple[Transfer, ...]

    def __len__(self) -> int:
        return len(self.transfers)

    def __iter__(self) -> Iterator[Transfer]:
        return iter(self.transfers)

    def __getitem__(self, number: int) -> Transfer:
        return self.transfers[number]

    def to_json(self) -> str:
        """The transfers as JSON: offsets, counts and strides in elements of row-major tiles."""
        return json.dumps({"device": self.device, "transfers": [_data(t) for t in self.transfers]})

    def to_nixl(self) -> str:
        """Descriptor lists as JSON, for movers that know contiguous memory alone.

        Of each transfer between devices an entry with the peer, its role (`send` or `receive`), the
        array, and (offset, bytes) of each run that is contiguous on both sides; offsets are from
        the start of this device's tile. The entries of two devices pair up in their order, and so
        do their descriptors, in bytes of each side's own memory. What they name is of `dtype`;
        `casts` are the dtypes that a sender goes through up to what crosses, or a receiver from
        there. Of elements that are repeated in a target the first arrives; `copies`, (from, to,
        bytes), make the others. Other copies and fills within a device are not there. Raises
        BackendError for a transfer of more than 2^20 runs.
        """
        entries = []
        transfers = (
            transfer
            for _, of_move in groupby(self.transfers, lambda transfer: transfer.target)
            for transfer in sorted(of_move, key=Transfer.place)
        )
        for transfer in transfers:
            if transfer.sender in (None, transfer.receiver):
                continue
            sending = transfer.sender == self.device
            wire = transfer.dtypes.index(transfer.wire) + 1
            entry: dict[str, Any] = {
                "peer": transfer.receiver if sending else transfer.sender,
                "role": "send" if sending else "receive",
                "array": transfer.source if sending else transfer.target,
                "phase": transfer.phase,
                "dtype": transfer.dtypes[0 if sending else -1],
                "casts": transfer.dtypes[:wire] if sending else transfer.dtypes[wire - 1 :],
                "descriptors": _descriptors(transfer, sending=sending),
            }
            if not sending:
                entry["copies"] = _repeats(transfer)
            entries.append(entry)
        return json.dumps({"device": self.device, "transfers": entries})


def _data(transfer: Transfer) -> dict[str, Any]:
    return {
        "sender": transfer.sender,
        "receiver": transfer.receiver,
        "target": transfer.target,
        "source": transfer.source,
        "phase": transfer.phase,
        "reduction": transfer.reduction,
        "dtypes": list(transfer.dtypes),
        "wire": transfer.wire,
        "target_offset": transfer.view.target_offset,
        "source_offset": transfer.view.source_offset,
        "counts": [count for count, _, _ in transfer.view.runs],
        "target_strides": [target for _, target, _ in transfer.view.runs],
        "source_strides": [source for _, _, source in transfer.view.runs],
    }


def _descriptors(transfer: Transfer, *, sending: bool) -> list[tuple[int, int]]:
    """(offset, bytes) on one side of a transfer of every run that is contiguous on both."""
    width = itemsize(transfer.dtypes[0 if sending else -1])
    runs = [run for run in transfer.view.runs if run[2]]
    start = transfer.view.source_offset if sending else transfer.view.target_offset
    length = 1
    while runs and runs[-1][1:] == (length, length):
        length *= runs.pop()[0]
    _check_few(transfer, prod(n for n, _, _ in runs))
    steps = [(n, s if sending else t) for n, t, s in runs]
    return [((start + offset) * width, length * width) for offset in _sums(steps)]


def _repeats(transfer: Transfer) -> list[tuple[int, int, int]]:
    """(from, to, bytes) in the receiver's tile of elements that are there more than once."""
    width, start = itemsize(transfer.dtypes[-1]), transfer.view.target_offset
    repeated = [(n, t) for n, t, s in transfer.view.runs if not s]
    steps = [(n, t) for n, t, s in transfer.view.runs if s]
    length = 1
    while steps and steps[-1][1] == length:
        length *= steps.pop()[0]
    _check_few(transfer, prod(n for n, _ in (*repeated, *steps)))
    places = [(start + offset) * width for offset in _sums(steps)]
    shifts = [shift * width for shift in _sums(repeated)]
    return [(place, place + shift, length * width) for shift in shifts[1:] for place in places]


def _sums(steps: Sequence[tuple[int, int]]) -> list[int]:
    """How far all counts of some steps (count, stride) lead, the first one slowest."""
    return [
        sum(stride * k for (_, stride), k in zip(steps, counts, strict=True))
        for counts in product(*(range(n) for n, _ in steps))
    ]


def _check_few(transfer: Transfer, count: int) -> None:
    if count > MAX_DESCRIPTORS:
        raise BackendError(
            f"a transfer has at most {MAX_DESCRIPTORS} contiguous descriptors; that of "
            f"{transfer.target} from device {transfer.sender} to {transfer.receiver} has {count}: "
            f"as JSON it is one strided view",
            transfer=transfer,
        )
