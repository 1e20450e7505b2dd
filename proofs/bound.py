"""The lower bound: target tile minus own part, on the worst device, in closed form.

Induction over the index digits of an aligned pair. So far: target tile T, the part `own` of it
that a device has, Q the product of the sizes that are owned in the source and local in the target,
`agree` whether the device's coordinates agree on every digit with different owners on both sides.
"""

from __future__ import annotations

from proofs.harness import Goal, Numbers, Term, bounded, false, horner, proved, z3

T, own, Q, k = z3.Ints("T own Q k")
agree = z3.Bool("agree")
SO_FAR = [T >= 1, Q >= 1, k >= 2, own >= 0]


def law(target: Term, held: Term, product: Term, agrees: Term) -> Term:
    """Held times Q is T on devices that agree, and nothing is held by the others."""
    return z3.If(agrees, held * product == target, held == 0)


@proved
def without_digits() -> Goal:
    """Base: of an array with one element every device holds all, and needs all."""
    return Goal([T == 1, own == 1, Q == 1], law(T, own, Q, z3.BoolVal(True)))


@proved
def local_on_both_sides() -> Goal:
    """Step: a digit local on both sides multiplies the tile and the own part by its size."""
    return Goal([*SO_FAR, law(T, own, Q, agree)], law(T * k, own * k, Q, agree))


@proved
def gathered() -> Goal:
    """Step: a digit owned in the source, local in the target multiplies the tile by its size and
    the own part by 1: the device has one of the k values."""
    return Goal([*SO_FAR, law(T, own, Q, agree)], law(T * k, own, Q * k, agree))


@proved
def owned_in_the_target_alone_or_by_one_digit() -> Goal:
    """Step: a digit owned by u in the target has one value in the target tile, u's coordinate. In
    the source it is local, and the device has all values, or owned by u, and it has that one."""
    value, u = z3.Ints("value u")
    local = z3.Bool("local")
    holds = z3.Or(local, value == u)
    facts = [*SO_FAR, law(T, own, Q, agree), *bounded((u, k)), value == u]
    return Goal(facts, law(T, own * z3.If(holds, 1, 0), Q, agree))


@proved
def different_owners() -> Goal:
    """Step: a digit owned by u in the source and v in the target is held if u's and v's coordinates
    agree, else nothing is."""
    u, v = z3.Ints("u v")
    held = z3.If(u == v, 1, 0)
    facts = [*SO_FAR, law(T, own, Q, agree), *bounded((u, k), (v, k))]
    return Goal(facts, law(T, own * held, Q, z3.And(agree, u == v)))


@proved
def counting_base() -> Goal:
    """Why an owned digit has one value, base: of no values none is the owner's coordinate."""
    u = z3.Int("u")
    return Goal([u >= 0], z3.If(u < 0, 1, 0) == 0)


@proved
def counting_step() -> Goal:
    """Step: of the first n + 1 values as many are the coordinate u as of the first n, and one more
    if n is u."""
    n, u, count = z3.Ints("n u count")
    facts = [n >= 0, u >= 0, count == z3.If(u < n, 1, 0)]
    return Goal(facts, count + z3.If(n == u, 1, 0) == z3.If(u < n + 1, 1, 0))


@proved
def a_digit_with_two_owners_leaves_somebody_nothing() -> Goal:
    """If some digit has different owners, the device with coordinates 0 and 1 on them disagrees and
    has no part of its target tile: the bound is the whole tile."""
    u, v = z3.Ints("u v")
    facts = [*SO_FAR, u == 0, v == 1, agree == (u == v), law(T, own, Q, agree)]
    return Goal(facts, z3.And(T - own == T, *bounded((u, k), (v, k))))


@proved
def otherwise_all_devices_are_alike() -> Goal:
    """If no digit has different owners, every device has T / Q: the bound is T (1 - 1/Q)."""
    tile, part, product = z3.ToReal(T), z3.ToReal(own), z3.ToReal(Q)
    facts = [*SO_FAR, law(T, own, Q, z3.BoolVal(True))]
    return Goal(facts, tile - part == tile * (1 - 1 / product))


@proved
def the_difference_of_sets_is_the_difference_of_sizes() -> Goal:
    """What must be received is counted as tile minus own part: each element more of the target tile
    is either in the source tile, and counts as own, or is not."""
    tile, part, missing = z3.Ints("tile part missing")
    held = z3.Bool("held")
    facts = [missing == tile - part]
    after = missing + z3.If(held, 0, 1)
    return Goal(facts, after == (tile + 1) - (part + z3.If(held, 1, 0)))


@proved
def components_take_their_least_at_once() -> Goal:
    """Misaligned: components have disjoint device digits, so the device whose coordinates are the
    worst ones of both, c1 and c2, exists: it is horner(c1, c2), from which both are read back. It
    holds the product of the two least own parts, and no other device receives more."""
    first, second = (z3.Function(f"overlap {n}", z3.IntSort(), z3.IntSort()) for n in (1, 2))
    c1, c2, d1, d2, n1, n2, device = z3.Ints("c1 c2 d1 d2 n1 n2 device")
    facts = [
        *bounded((c1, n1), (c2, n2), (d1, n1), (d2, n2)),
        device == horner([(c1, n1), (c2, n2)]),
        0 <= first(c1),
        first(c1) <= first(d1),
        0 <= second(c2),
        second(c2) <= second(d2),
    ]
    worst = T - first(device / n2) * second(device % n2)
    same = [device / n2 == c1, device % n2 == c2]  # `digits`: quotient and remainder
    return Goal([*facts, *same], z3.And(device < n1 * n2, T - first(d1) * second(d2) <= worst))


@proved
def the_worst_device_across() -> Goal:
    """Between two meshes: a device that is on the source mesh too has its own part of the target
    tile, any other has nothing. If the worst of the devices so far misses the tile less the least
    part, so does the worst with one device more; and with one that is not on the source mesh the
    bound is the whole tile."""
    worst, least, mine, part = z3.Ints("worst least mine part")
    both = z3.Bool("both")
    facts = [
        T >= 1,
        worst == T - least,
        0 <= least,
        least <= T,
        0 <= part,
        part <= T,
        mine == z3.If(both, part, 0),
    ]
    smaller = z3.If(mine <= least, mine, least)
    greater = z3.If(T - mine >= worst, T - mine, worst)
    return Goal(facts, z3.And(greater == T - smaller, z3.Or(both, greater == T)))


@false
def every_device_receives_the_bound() -> Goal:
    """FALSE: by an exchange of an aligned pair every device receives as much as the worst one."""
    u, v, x = z3.Ints("u v x")

    def problem(number: Numbers) -> tuple[str, str, str]:
        size = number(x)
        return f"x={size},y={size}", f"f32[{size}{{x}}]", f"f32[{size}{{y}}]"

    facts = [*bounded((u, x), (v, x)), x >= 2, x <= 3, T == 1, own == z3.If(u == v, 1, 0)]
    return Goal(facts, T - own == T, problem)
