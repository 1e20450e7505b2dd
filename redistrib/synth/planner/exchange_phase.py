"""The exchange phase at constant tile: ways to move digits along paths and rings.

Example: x=2,y=2, `f32[4{x}, 4{y}, 4] -> f32[4, 4{x}, 4{y}]`. x moves from dimension 0 to 1 and y
from 1 to 2: one path. Either a permute gives what x owned to y, and an all_to_all takes y from
dimension 0 to 2; or one all_to_all moves y out of the way, and a second one x into its place. As in
`chains`, u are the device digits that move and b the index digits along which they do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

from redistrib.synth.plan.collectives import AllToAll, CollectivePermute, Move
from redistrib.synth.plan.profile import Profile
from redistrib.synth.planner.chains import spare_digit
from redistrib.types.digits import DeviceDigit, IndexDigit

ADDENDS = -2
"""A dimension that no array has: its digits are owned by what is partial on both sides."""

Rounds = list[AllToAll | CollectivePermute]
Moving = tuple[tuple[DeviceDigit, ...], tuple[IndexDigit, ...]]
"""Device digits, and the index digits that they move along."""


def place_spares(
    wanted: Sequence[IndexDigit], spares: list[IndexDigit], taken: Sequence[IndexDigit] = ()
) -> dict[IndexDigit, IndexDigit] | None:
    """A local index digit for each spare one, cut off the major end of runs that nobody names."""
    placed: dict[IndexDigit, IndexDigit] = {}
    if not wanted:
        return placed
    used = {
        run: prod(i.size for i in taken if i.dim == run.dim and run.pre <= i.pre < run.end)
        for run in spares
    }
    for spare in wanted:
        for run in spares:
            if run.size // used[run] % spare.size == 0:
                placed[spare] = IndexDigit(run.dim, run.pre * used[run], spare.size)
                used[run] *= spare.size
                break
        else:
            return None
    return placed


def lowerings(
    moving: list[Moving], taken: list[IndexDigit], spares: list[IndexDigit], profile: Profile
) -> Iterator[Rounds]:
    """Ways to run the exchange phase; `taken` are the spare index digits already in use."""
    paths = [(u, b) for u, b in moving if b and b[0] != b[-1]]
    rings = [(u, b) for u, b in moving if not b or b[0] == b[-1]]
    if not rings and all(len(u) == 1 for u, _ in paths):
        yield [AllToAll(tuple(Move(u[0], b[0], b[1]) for u, b in paths))] if paths else []
        return
    # One permute closes the rings and leaves each path with its last digit on its first index.
    routes = []
    for u, _ in moving:
        if len(u) > 1:
            routes += [*zip(u[1:], u, strict=False), (u[0], u[-1])]
    last = [Move(u[-1], b[0], b[-1]) for u, b in paths]
    yield [CollectivePermute(tuple(routes)), *([AllToAll(tuple(last))] if last else [])]
    if not all(b for _, b in rings) or any(i.dim == ADDENDS for _, b in moving for i in b):
        return
    if not profile.uniform:
        yield from _in_turn(paths, rings, taken, spares, profile)
    yield from _vacate_and_settle(paths, rings, taken, spares)


def _vacate_and_settle(
    paths: list[Moving], rings: list[Moving], taken: list[IndexDigit], spares: list[IndexDigit]
) -> Iterator[Rounds]:
    """Two all_to_alls: the first vacates all that the second needs, if need be to spare places."""
    vacate: list[Move] = []
    settle: list[Move] = []
    for u, b in paths:
        settle.append(Move(u[0], b[0], b[1]))
        if len(u) > 1:
            vacate.append(Move(u[-1], b[-2], b[-1]))
    park = [(d, b[k], b[k + 1]) for u, b in paths for k, d in enumerate(u[:-1]) if k]
    park += [(d, b[k], b[k + 1]) for u, b in rings for k, d in enumerate(u)]
    places = place_spares(
        [spare_digit(n, d.size) for n, (d, _, _) in enumerate(park)], spares, taken
    )
    if places is None:
        return
    for place, (device, start, end) in zip(places.values(), park, strict=True):
        vacate.append(Move(device, start, place))
        settle.append(Move(device, place, end))
    yield [AllToAll(tuple(vacate)), AllToAll(tuple(settle))]


def _in_turn(
    paths: list[Moving],
    rings: list[Moving],
    taken: list[IndexDigit],
    spares: list[IndexDigit],
    profile: Profile,
) -> Iterator[Rounds]:
    """All_to_alls that let every digit move once, over its own link, the last of a path first.

    In a ring the digit with the fastest link steps aside to a spare place and moves twice.
    """
    wanted = [spare_digit(n, u[0].size) for n, (u, _) in enumerate(rings)]
    places = place_spares(wanted, spares, taken)
    if places is None:
        return
    stages: list[list[Move]] = []

    def add(stage: int, move: Move) -> None:
        while len(stages) <= stage:
            stages.append([])
        stages[stage].append(move)

    for u, b in paths:
        for n, k in enumerate(reversed(range(len(u)))):
            add(n, Move(u[k], b[k], b[k + 1]))
    for (u, b), spare in zip(rings, wanted, strict=True):
        m, place = len(u), places[spare]
        links = [
            (link.bandwidth, -link.latency, [-n for n in link.where])
            for link in map(profile.link_of, u)
        ]
        # Of several such digits the one after which the others come in the greatest order, so that
        # the price does not depend on where the ring was entered.
        aside = max(range(m), key=lambda k: [links[k - n] for n in range(m)])
        add(0, Move(u[aside], b[aside], place))
        for n in range(1, m):
            k = (aside - n) % m
            add(n, Move(u[k], b[k], b[k + 1]))
        add(m, Move(u[aside], place, b[aside + 1]))
    yield [AllToAll(tuple(moves)) for moves in stages]
