"""The exchange: who sends an element holds it, each receiver keeps what it has, replicas share.

A sender is found digit by digit (aligned pairs), or per box of a source tile and a target tile.
Chains: u1, ..., um, where u(j+1) owns in the source the index digit that u(j) owns in the target;
u1 owns nothing in the source. What holds for all j is proved for one j; what is passed on along a
chain is proved by induction.
"""

from __future__ import annotations

from proofs.harness import Goal, Numbers, bounded, false, horner, proved, z3

Int = z3.IntSort()
sender, receiver = z3.Function("sender", Int, Int), z3.Function("receiver", Int, Int)
element = z3.Function("element", Int, Int)
j, length, k, p, q = z3.Ints("j length k p q")


@proved
def the_sender_holds_the_element() -> Goal:
    """Each digit of the sender that owns something has the value of that digit in the element, so
    by induction over the digits the sender's indices are the element's: one digit more."""
    mine, theirs = z3.Ints("mine theirs")
    given = [p == q, theirs == mine, *bounded((mine, k))]
    return Goal(given, horner([(p, 1), (theirs, k)]) == horner([(q, 1), (mine, k)]))


@proved
def own_piece_base() -> Goal:
    """A receiver that holds the element, base: along a chain, u2's coordinate is u1's: both are the
    element's digit, u1 wants it and u2 has it."""
    given = [receiver(1) == element(1), receiver(2) == element(1)]
    return Goal(given, receiver(2) == receiver(1))


@proved
def own_piece_step() -> Goal:
    """Step: u(j) has u1's coordinate, wants digit j, and u(j+1) has digit j: so has u(j+1)."""
    given = [receiver(j) == receiver(1), receiver(j) == element(j), receiver(j + 1) == element(j)]
    return Goal(given, receiver(j + 1) == receiver(1))


@proved
def own_piece_comes_first() -> Goal:
    """So it is its own sender: u1, free in the source, takes the coordinate of the receiver's last
    digit; the others take the element's digits, which are the receiver's."""
    given = [
        length >= 2,
        *bounded((j, length)),
        sender(1) == receiver(length),
        receiver(length) == receiver(1),
        sender(j + 1) == element(j),
        receiver(j + 1) == element(j),
    ]
    return Goal(given, z3.And(sender(1) == receiver(1), sender(j + 1) == receiver(j + 1)))


@proved
def replicas_share_the_load() -> Goal:
    """On a chain the sender is the receiver turned by one: u(j+1) gets the value of u(j), u1 that
    of the last. So receivers with one sender are one receiver, and each replica serves as much as
    the others."""
    other_sender, other = z3.Function("sender'", Int, Int), z3.Function("receiver'", Int, Int)
    given = [length >= 1, 1 <= j, j <= length]
    for s, r in ((sender, receiver), (other_sender, other)):
        given += [s(1) == r(length), z3.Implies(j < length, s(j + 1) == r(j))]
    given += [sender(1) == other_sender(1), sender(j + 1) == other_sender(j + 1)]
    return Goal(given, receiver(j) == other(j))


@proved
def boxes_do_not_overlap() -> Goal:
    """Box exchange, aligned or not: two devices that hold one element agree on every digit that
    owns something, so source tiles are equal or disjoint and each element is fetched once: one
    digit more, with the prefixes read as one."""
    one, two = z3.Ints("one two")
    given = [
        *bounded((one, k), (two, k)),
        horner([(p, 1), (one, k)]) == horner([(q, 1), (two, k)]),
    ]
    return Goal(given, z3.And(one == two, p == q))


@proved
def boxes_are_products() -> Goal:
    """An element lies in both tiles iff each of its indices does, so intersections are boxes and
    their sizes multiply: one dimension more."""
    common, dims, more = z3.Ints("common dims more")
    mine, yours = z3.Ints("mine yours")
    given = [common == mine * yours, dims == common * more, mine >= 0, yours >= 0, more >= 0]
    return Goal(given, dims == mine * (yours * more))


@false
def a_free_digit_keeps_its_value() -> Goal:
    """FALSE: a receiver that holds the element is its own sender even if the free digit u1 of the
    sender is always 0."""
    x = z3.Int("x")

    def problem(number: Numbers) -> tuple[str, str, str]:
        size = number(x)
        return f"x={size},y={size}", f"f32[{size}{{y}}]", f"f32[{size}{{x}}]"

    given = [
        *bounded((receiver(1), x), (receiver(2), x)),
        x <= 3,
        receiver(1) == element(1),
        receiver(2) == element(1),
        sender(1) == 0,
        sender(2) == element(1),
    ]
    return Goal(given, z3.And(sender(1) == receiver(1), sender(2) == receiver(2)), problem)
