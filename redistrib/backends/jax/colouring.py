"""The pieces of an exchange in rounds: what one permute, or one copy from device to device, moves.

In a round each device sends at most one piece and receives at most one, all of one shape. Pieces
are the edges of a graph from senders to receivers, and rounds are its colours: as many as the most
that a device sends or receives (Koenig). On 3 devices that send one piece to each other device, 2
rounds do:

>>> from redistrib.synth.plan.pieces import pieces_of
>>> from redistrib.synth.plan.routing import exchange_traffic
>>> from redistrib.types.array_type import ArrayType
>>> from redistrib.types.mesh import Mesh
>>> src, dst = (ArrayType.parse(text, Mesh(x=3)) for text in ("f32[3{x}, 3]", "f32[3, 3{x}]"))
>>> pieces = pieces_of(exchange_traffic(src, dst).exchange, src, dst).pieces
>>> away = [piece for piece in pieces if piece.sender != piece.receiver]
>>> [[(p.sender, p.receiver) for p in turn] for turn in edge_colouring(away)]
[[(2, 0), (0, 1), (1, 2)], [(1, 0), (2, 1), (0, 2)]]
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import prod

from redistrib.synth.plan.pieces import Piece

ROUND_BYTES = 100_000
"""What the latency of a round costs, in bytes: 1 us at 100 GB/s, as in the default profile."""


def rounds(pieces: Sequence[Piece], block_bytes: int) -> list[list[Piece]]:
    """The pieces in rounds in which each device sends at most one and receives at most one.

    The pieces of a round are padded to one shape. Rounds of pieces of one shape need no padding,
    and take the least number per shape: the most that a device sends or receives. Where shapes are
    many, fewer rounds of unlike pieces can be cheaper; the cheaper of the two is taken.
    """
    by_shape: defaultdict[tuple[int, ...], list[Piece]] = defaultdict(list)
    for piece in sorted(pieces, key=lambda p: (-prod(p.shape), p.shape, p.receiver, p.sender)):
        by_shape[piece.shape].append(piece)
    exact = [turn for same in by_shape.values() for turn in edge_colouring(same)]
    mixed = _first_fit([piece for same in by_shape.values() for piece in same])
    return min(exact, mixed, key=lambda turns: _cost(turns, block_bytes))


def padded_shape(pieces: Iterable[Piece]) -> tuple[int, ...]:
    """The shape of a round: the largest number of blocks per dimension."""
    return tuple(max(sizes) for sizes in zip(*(piece.shape for piece in pieces), strict=True))


def _cost(turns: Sequence[Sequence[Piece]], block_bytes: int) -> int:
    """Bytes that the worst device receives, padding included, and the latencies in bytes."""
    received: defaultdict[int, int] = defaultdict(int)
    for pieces in turns:
        size = prod(padded_shape(pieces)) * block_bytes
        for piece in pieces:
            received[piece.receiver] += size
    return max(received.values(), default=0) + len(turns) * ROUND_BYTES


def stays(routes: Iterable[tuple[int, int]]) -> bool:
    """Whether no route, a sender and a receiver, leads to another device."""
    return all(sender == receiver for sender, receiver in routes)


def edge_colouring(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Rounds of pieces of one shape: colours of the edges from senders to receivers."""
    ends = [(("sends", p.sender), ("receives", p.receiver)) for p in pieces]
    # Per node, its edge of each colour.
    edge_at: defaultdict[tuple[str, int], dict[int, int]] = defaultdict(dict)
    for new, (sender, receiver) in enumerate(ends):
        free, other = _free(edge_at[sender]), _free(edge_at[receiver])
        # Swapping the two colours along the path from the receiver that begins with `free` makes
        # it free there. The path does not end in the sender: it enters senders by edges of colour
        # `free`, which this one lacks.
        path = []
        node, colour = receiver, free
        while colour in edge_at[node]:
            edge = edge_at[node][colour]
            path.append((edge, colour))
            node = next(end for end in ends[edge] if end != node)
            colour = free + other - colour
        for edge, old in path:
            for end in ends[edge]:
                del edge_at[end][old]
        for edge, old in path:
            for end in ends[edge]:
                edge_at[end][free + other - old] = edge
        edge_at[sender][free] = edge_at[receiver][free] = new
    turns: defaultdict[int, list[Piece]] = defaultdict(list)
    for edge, (sender, _) in enumerate(ends):
        colour = next(c for c, other_edge in edge_at[sender].items() if other_edge == edge)
        turns[colour].append(pieces[edge])
    return [turns[colour] for colour in sorted(turns)]


def _free(used: dict[int, int]) -> int:
    return next(colour for colour in range(len(used) + 1) if colour not in used)


def _first_fit(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Each piece in the first round with room: largest first, so that rounds hold like sizes."""
    turns: list[list[Piece]] = []
    for piece in pieces:
        for turn in turns:
            if all(p.sender != piece.sender and p.receiver != piece.receiver for p in turn):
                turn.append(piece)
                break
        else:
            turns.append([piece])
    return turns
