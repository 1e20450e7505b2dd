"""Who sends what in an exchange: that it holds it, and how much each device sends.

On x=4,y=6, in the part f32[12{x}] -> f32[12{y}] of `parts`, the receiver (x, y) = (0, 1) asks for
the values 0 and 1 of x. That is two *requests*, of one element each. It holds the first itself; for
the second its row of the table names one of the six devices with x = 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np

from redistrib.checker.claims import require
from redistrib.checker.parts import Part, size_of
from redistrib.checker.shared import Numbers
from redistrib.types.digits import DeviceDigit, digit_values, inside, with_digits

Loads = set[tuple[int, int]]
"""What devices send in all and to themselves."""


@dataclass(frozen=True, slots=True)
class Table:
    """A routing table as the plan has it: entries are (row, value, sender), in three arrays."""

    axes: list[DeviceDigit]
    owners: list[DeviceDigit]
    rows: int
    entries: tuple[Numbers, Numbers, Numbers]


def loads(
    part: Part, replicas: Sequence[tuple[DeviceDigit, DeviceDigit]], tables: Sequence[Table]
) -> tuple[Loads, int]:
    """Elements that devices send in all and to themselves in a part, and the most senders of one.

    Raises CheckError unless each element comes from a device that has it, and from the receiver
    itself if that has it.
    """
    require(all(part.has(name) for _, name in replicas), "a part names its own replicas")
    if part.plain:
        # A digit of the sender is one of the receiver, or an index of the element.
        owner: dict[Any, DeviceDigit] = {index: device for device, index in part.dst.items()}
        origin: dict[DeviceDigit, Any] = {d: owner.get(i, i) for d, i in part.src.items()}
        chosen = dict(replicas)
        senders = {origin.get(d, chosen.get(d, d)) for d in part.spans}
        require(len(senders) == len(part.spans), "all replicas serve the same amount")
        sent = size_of(run for run in part.runs if run not in owner)
        gathered = size_of(index for index in part.src.values() if index not in owner)
        return {(sent, part.least_overlap())}, gathered
    if not tables:
        require(not replicas, "replicas are named of digits that match")
        return _loads_alike(part)
    for table in tables:
        _check_table(table, part)
    sender, receiver, elements, most = _requests(part, np.arange(len(part.home)))
    right = digit_values([*part.src], sender, part.spans)
    home = part.home[receiver]
    kept = (home >= 0) & (digit_values([*part.src], np.maximum(home, 0), part.spans) == right)
    for device, name in replicas:
        values = digit_values([name], receiver, part.receiver_spans)
        sender = with_digits(sender, [device], values, part.spans)
    for table in tables:
        sender = _routed(table, part, receiver, sender)
    holds = np.array_equal(digit_values([*part.src], sender, part.spans), right)
    require(holds, "who sends an element holds it")
    require(np.array_equal(kept, sender == home), "a device keeps what it already holds")
    totals = np.zeros((2, size_of(part.spans)), elements.dtype)
    np.add.at(totals[0], sender, elements)
    np.add.at(totals[1], sender[kept], elements[kept])
    return worst({*zip(*totals.tolist(), strict=True)}), most


def worst(served: Loads) -> Loads:
    """The loads (in all, kept) that can be the worst: none sends as much and keeps no more."""
    front, least = [], None
    for total, kept in sorted(served, key=lambda load: (-load[0], load[1])):
        if least is None or kept < least:
            front.append((total, kept))
            least = kept
    return {*front}


def _check_table(table: Table, part: Part) -> None:
    rows = len(part.home) if part.homes is not None else size_of(table.axes)
    number, value, sender = table.entries
    values, senders = size_of(table.owners), size_of(table.axes)
    right = table.rows == rows and not (value >= values).any() and not (sender >= senders).any()
    require(right, "the rows and senders of a table are coordinates over its axes")
    known = all(any(inside(owner, axis) for axis in table.axes) for owner in table.owners)
    require(known, "the owners of a table are in its axes")
    require(max(rows, 1) * values < 1 << 62, "a table is of few devices")
    require(bool((np.diff(number * values + value) > 0).all()), "a row has each value once")
    part.effort.spend(len(number))


def _loads_alike(part: Part) -> tuple[Loads, int]:
    """The loads where a sender is like the receiver in all digits that own nothing before.

    So a receiver keeps what it has. Run by run, receivers are counted once that ask the same sender
    so far and want the same of the runs that are left.
    """
    if size_of(part.src) == size_of(part.spans):  # no replicas: every tile is asked for alike
        asking = size_of(part.spans) // size_of(part.dst)
        most = prod(int(np.diff(run.starts).max()) for run in part.shared)
        return {(size_of(part.runs) // size_of(part.src) * asking, part.least_overlap())}, most
    receiver = np.arange(len(part.home))
    senders = np.ones_like(receiver)
    for run in part.shared:
        senders *= np.diff(run.starts)[part.wants(run)]
    sender = with_digits(receiver, [*part.src], np.zeros_like(receiver), part.spans)
    elements = np.ones_like(receiver)
    # Most receivers are alike soon where a run has few owners before and many after.
    order = sorted(part.shared, key=lambda run: Fraction(size_of(run.src), size_of(run.dst)))
    for done, run in enumerate(order):
        left = [digit for later in order[done:] for digit in later.dst]
        kinds = sender * size_of(left) + digit_values(left, receiver, part.spans)
        _, first, alike = np.unique(kinds, return_index=True, return_inverse=True)
        total = np.zeros(len(first), elements.dtype)
        np.add.at(total, alike, elements)
        wanted = part.wants(run)[receiver[first]]
        count = run.starts[wanted + 1] - run.starts[wanted]
        part.effort.spend(len(first) + int(count.sum()))
        number = np.repeat(np.arange(len(first)), count)
        entry = np.arange(len(number)) - np.repeat(np.cumsum(count) - count, count)
        entry += run.starts[wanted][number]
        receiver, sender = receiver[first][number], sender[first][number]
        sender = with_digits(sender, run.src, run.keys[entry] % run.base, part.spans)
        elements = total[number] * run.counts[entry]
    served = np.zeros(len(part.home), elements.dtype)
    np.add.at(served, sender, elements)
    return worst({*zip(served.tolist(), part.overlap.tolist(), strict=True)}), int(senders.max())


def _requests(part: Part, receivers: Numbers) -> tuple[Numbers, Numbers, Numbers, int]:
    """The requests of receivers: sender, number of the receiver, elements; the most of a receiver.

    The sender is like the receiver in what owns nothing before: replicas and tables choose another.
    """
    wanted = [part.wants(run)[receivers] for run in part.shared]
    factors = [
        run.starts[b + 1] - run.starts[b] for run, b in zip(part.shared, wanted, strict=True)
    ]
    count = np.ones(len(receivers), np.int64)
    for factor in factors:
        count = count * factor
    part.effort.spend(int(count.sum()))
    number = np.repeat(np.arange(len(receivers)), count)
    index = np.arange(len(number)) - np.repeat(np.cumsum(count) - count, count)
    sender = np.maximum(part.home, 0)[receivers[number]]
    elements = np.ones(len(number), np.int64)
    for run, b, factor in zip(part.shared, wanted, factors, strict=True):
        entry = run.starts[b[number]] + index % factor[number]
        index = index // factor[number]
        sender = with_digits(sender, run.src, run.keys[entry] % run.base, part.spans)
        elements = elements * run.counts[entry]
    return sender, number, elements, int(count.max())


def _routed(table: Table, part: Part, receiver: Numbers, sender: Numbers) -> Numbers:
    """The senders, with the digits of a table as it has them. Every entry is asked for."""
    number, value, senders = table.entries
    row = receiver if part.homes is not None else digit_values(table.axes, receiver, part.spans)
    values = size_of(table.owners)
    known, wanted = (
        number * values + value,
        row * values + digit_values(table.owners, sender, part.spans),
    )
    place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    complete = len(known) > 0 and np.array_equal(known[place], wanted)
    require(complete, "a table has a sender for every value that is asked for")
    require(len({*place.tolist()}) == len(known), "a table has no entry that nobody asks for")
    return with_digits(sender, table.axes, senders[place], part.spans)
