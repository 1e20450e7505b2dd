"""The triangle inequality of `direct`: going through another type never receives less.

What a device must receive is what it needs and does not hold: C - A for a move from A to C.
Induction over the elements of the array, then over the devices; then the price of one call.
"""

from __future__ import annotations

from proofs.harness import Goal, Numbers, Term, false, proved, z3

AC, AB, BC = z3.Ints("AC AB BC")  # so far: elements in C and not in A, in B not in A, in C not in B
a, b, c = z3.Bools("a b c")  # whether the next element is in A, in B, in C


def more(count: Term, needed: Term, held: Term) -> Term:
    """The count after one more element."""
    return count + z3.If(z3.And(needed, z3.Not(held)), 1, 0)


@proved
def no_elements() -> Goal:
    """Base: of no elements none is received."""
    return Goal([AC == 0, AB == 0, BC == 0], AC <= AB + BC)


@proved
def one_more_element() -> Goal:
    """Step: an element in C and not in A is not in B, and then received on the way from B to C, or
    in B, and then received on the way from A to B."""
    facts = [AC >= 0, AB >= 0, BC >= 0, AC <= AB + BC]
    return Goal(facts, more(AC, c, a) <= more(AB, b, a) + more(BC, c, b))


@proved
def one_more_device() -> Goal:
    """The worst device of each way: if no device so far receives less through B, and the next one
    does not, then neither does the worst of them."""
    worst_ac, worst_ab, worst_bc = z3.Ints("worst_AC worst_AB worst_BC")

    def worst(so_far: Term, next_one: Term) -> Term:
        return z3.If(so_far >= next_one, so_far, next_one)

    facts = [AC <= AB + BC, worst_ac <= worst_ab + worst_bc]
    return Goal(facts, worst(worst_ac, AC) <= worst(worst_ab, AB) + worst(worst_bc, BC))


def price(received: Term, latency: Term, bandwidth: Term) -> Term:
    """Seconds of one call; a move that receives nothing is none."""
    return z3.If(received > 0, latency + received / bandwidth, 0)


@proved
def one_call() -> Goal:
    """As one call over one kind of link: the latency is paid once for the way straight on, if it
    receives anything, and then at least once for the detour, which receives something too."""
    ac, ab, bc, latency, bandwidth = z3.Reals("ac ab bc latency bandwidth")
    facts = [ac >= 0, ab >= 0, bc >= 0, ac <= ab + bc, latency >= 0, bandwidth > 0]
    straight = price(ac, latency, bandwidth)
    detour = price(ab, latency, bandwidth) + price(bc, latency, bandwidth)
    return Goal(facts, straight <= detour)


@proved
def closure_through_the_last_type() -> Goal:
    """A closed matrix: if no way through the types before k is cheaper, and each entry is the least
    of its old value and the way through k, then no way through k is cheaper either, for going to k
    or from k through k gains nothing."""
    ij, ik, kj, kk = z3.Reals("ij ik kj kk")

    def least(a: Term, b: Term) -> Term:
        return z3.If(a <= b, a, b)

    facts = [ij >= 0, ik >= 0, kj >= 0, kk == 0]
    new_ij, new_ik, new_kj = least(ij, ik + kj), least(ik, ik + kk), least(kj, kk + kj)
    return Goal(facts, new_ij <= new_ik + new_kj)


@false
def rounds() -> Goal:
    """FALSE: an exchange in rounds, which pays a latency per sender, has no cheaper detour. Two
    gathers in a row pay k1 + k2 latencies, one of both k1 k2."""
    k1, k2, latency, bytes_ = z3.Ints("k1 k2 latency bytes")
    facts = [k1 >= 2, k2 >= 2, latency >= 1, bytes_ >= 1]
    straight = k1 * k2 * latency + bytes_ * (k1 * k2 - 1)
    detour = k1 * latency + bytes_ * (k1 - 1) + k2 * latency + bytes_ * k1 * (k2 - 1)

    def problem(number: Numbers) -> tuple[str, str, str]:
        n, m = number(k1), number(k2)
        return f"x={n},y={m}", f"f32[{n}{{x}}, {m}{{y}}]", f"f32[{n}, {m}]"

    return Goal(facts, straight <= detour, problem)


@false
def without_a_limit_of_its_own() -> Goal:
    """FALSE: under a memory limit relative to each pair, here the larger end, the way through B is
    one that the pair may take."""
    tile_a, tile_b, tile_c = z3.Ints("tile_A tile_B tile_C")
    facts = [tile_a >= 1, tile_b >= 1, tile_c >= 1]
    return Goal(facts, z3.Or(tile_b <= tile_a, tile_b <= tile_c))
