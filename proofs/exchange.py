"""The exchange: who sends an element holds it, each receiver keeps what it has, replicas share.

A sender is found digit by digit (aligned pairs), or per box of a source tile and a target tile.
Chains: u1, ..., um, where u(j+1) owns in the source the index digit that u(j) owns in the target;
u1 owns nothing in the source. What holds for all j is proved for one j; what is passed on along a
chain is proved by induction.
"""

from __future__ import annotations

from proofs.harness import Goal, Numbers, Term, bounded, false, proved, z3

Int = z3.IntSort()
sender, receiver = z3.Function("sender", Int, Int), z3.Function("receiver", Int, Int)
element = z3.Function("element", Int, Int)
load = z3.Function("load", Int, Int)  # elements that a replica has served so far
j, length, k, p, q, largest = z3.Ints("j length k p q largest")


@proved
def the_sender_holds_the_element() -> Goal:
    """A digit of the sender that owns an index digit takes its value in the wanted index, which is
    the index // weight % size: of prefix, digit and rest it is the digit, whatever the others are,
    and as a coordinate it is one of the digit's values."""
    wanted, prefix, digit, rest, weight, above = z3.Ints("wanted prefix digit rest weight above")
    taken = wanted / weight % k
    facts = [
        *bounded((digit, k), (rest, weight)),
        prefix >= 0,
        above == prefix * k + digit,
        wanted == above * weight + rest,
        wanted / weight == above,  # `digits.quotient_drops_the_suffix`
        above % k == digit,  # `digits.remainder_is_the_last_digit`
    ]
    return Goal(facts, z3.And(taken == digit, *bounded((taken, k))))


@proved
def own_piece_step() -> Goal:
    """A receiver that holds the element, step along a chain: u(j) has u1's coordinate, wants digit
    j, and u(j+1) has digit j: so has u(j+1)."""
    facts = [receiver(j) == receiver(1), receiver(j) == element(j), receiver(j + 1) == element(j)]
    return Goal(facts, receiver(j + 1) == receiver(1))


@proved
def own_piece_comes_first() -> Goal:
    """So it is its own sender: u1, free in the source, takes the coordinate of the receiver's last
    digit; the others take the element's digits, which are the receiver's."""
    facts = [
        length >= 2,
        *bounded((j, length)),
        sender(1) == receiver(length),
        receiver(length) == receiver(1),
        sender(j + 1) == element(j),
        receiver(j + 1) == element(j),
    ]
    return Goal(facts, z3.And(sender(1) == receiver(1), sender(j + 1) == receiver(j + 1)))


@proved
def replicas_share_the_load() -> Goal:
    """On a chain the sender is the receiver turned by one: u(j+1) gets the value of u(j), u1 that
    of the last. So receivers with one sender are one receiver, and each replica serves as much as
    the others."""
    other_sender, other = z3.Function("sender'", Int, Int), z3.Function("receiver'", Int, Int)
    facts = [length >= 1, 1 <= j, j <= length]
    for s, r in ((sender, receiver), (other_sender, other)):
        facts += [s(1) == r(length), z3.Implies(j < length, s(j + 1) == r(j))]
    facts += [sender(1) == other_sender(1), sender(j + 1) == other_sender(j + 1)]
    return Goal(facts, receiver(j) == other(j))


@proved
def replicas_are_loaded_alike_base() -> Goal:
    """Misaligned: each replica serves its own piece first, which is no more than the largest one;
    so of two replicas none has more than the largest piece above the other."""
    facts = [0 <= load(p), load(p) <= largest, 0 <= load(q), load(q) <= largest]
    return Goal(facts, load(p) <= load(q) + largest)


@proved
def replicas_are_loaded_alike_step() -> Goal:
    """Misaligned: the least loaded replica of a tile serves the next piece. If two replicas
    differed by no more than the largest piece, they still do, whichever of them served."""
    chosen, piece = z3.Ints("chosen piece")

    def served(replica: Term) -> Term:
        return load(replica) + z3.If(replica == chosen, piece, 0)

    facts = [0 <= piece, piece <= largest]
    facts += [load(chosen) <= load(replica) for replica in (p, q)]
    facts += [load(p) <= load(q) + largest]
    return Goal(facts, served(p) <= served(q) + largest)


@proved
def no_replica_is_loaded_above_the_mean_and_a_piece() -> Goal:
    """So n replicas that serve `total` have n times the load of one within total + (n - 1) times
    the largest piece. Step of the sum: one replica more beside that one."""
    n, total, mine, other, times, spread = z3.Ints("n total mine other times spread")
    facts = [n >= 1, times <= total + spread, mine <= other + largest]
    # times is n * mine, spread (n - 1) * largest.
    return Goal(facts, times + mine <= (total + other) + (spread + largest))


@proved
def boxes_are_products() -> Goal:
    """An element lies in both tiles iff each of its indices does, so sizes of intersections
    multiply: of one index more in a dimension, all the combinations with the other dimensions are
    common, or none."""
    common, others, count = z3.Ints("common others count")
    inside = z3.Bool("inside")
    facts = [count == common * others]
    after = count + z3.If(inside, others, 0)
    return Goal(facts, after == (common + z3.If(inside, 1, 0)) * others)


@proved
def a_sender_across_holds_the_element() -> Goal:
    """Between two meshes: the sender's digit that owns an index digit has the value of that in the
    wanted index, all other digits what the receiver says. That is a device of the mesh, and what
    its owner is reads back as the digit of the index, whoever the receiver is."""
    wanted, copy, owners, copies, device = z3.Ints("wanted copy owners copies device")
    index, above, weight, rest, prefix = z3.Ints("index above weight rest prefix")
    facts = [
        *bounded((wanted, owners), (copy, copies), (rest, weight)),
        prefix >= 0,
        above == prefix * owners + wanted,
        index == above * weight + rest,
        device == wanted * copies + copy,
        index / weight == above,  # `digits.quotient_drops_the_suffix`
        above % owners == wanted,  # `digits.remainder_is_the_last_digit`
        device / copies == wanted,  # the first again
    ]
    holds = device / copies == index / weight % owners
    return Goal(facts, z3.And(holds, *bounded((device, owners * copies))))


@proved
def copies_across_serve_alike() -> Goal:
    """Between two meshes: a receiver is a value of the digits that name a copy, and a rest, major
    to minor. The receivers with one copy are as many as the rests: they are what lies from the copy
    times the rests to the next copy times these, and nothing else."""
    receiver_, copy, rests, named = z3.Ints("receiver copy rests named")
    rest = z3.Int("rest")
    facts = [
        *bounded((rest, rests)),
        named >= 0,
        copy >= 0,
        receiver_ == named * rests + rest,
        z3.Implies(named > copy, named * rests >= (copy + 1) * rests),
        z3.Implies(named < copy, (named + 1) * rests <= copy * rests),
    ]
    served = z3.And(copy * rests <= receiver_, receiver_ < (copy + 1) * rests)
    return Goal(facts, served == (named == copy))


@false
def a_free_digit_keeps_its_value() -> Goal:
    """FALSE: a receiver that holds the element is its own sender even if the free digit u1 of the
    sender is always 0."""
    x = z3.Int("x")

    def problem(number: Numbers) -> tuple[str, str, str]:
        size = number(x)
        return f"x={size},y={size}", f"f32[{size}{{y}}]", f"f32[{size}{{x}}]"

    facts = [
        *bounded((receiver(1), x), (receiver(2), x)),
        x <= 3,
        receiver(1) == element(1),
        receiver(2) == element(1),
        sender(1) == 0,
        sender(2) == element(1),
    ]
    return Goal(facts, z3.And(sender(1) == receiver(1), sender(2) == receiver(2)), problem)
