"""Volume: what plans of the three phases receive, against the lower bound.

t is the tile of the moves, G the group of the gather, K the group of the all_to_all, T the target
tile; Q is the product of the sizes that are owned in the source and local in the target. By
`bound`, the bound is T if some digit has different owners on the two sides, else T (1 - 1/Q). That
T = t G and, where paths have one edge, Q = K G is shown by induction over the index digits. All are
reals.
"""

from __future__ import annotations

from proofs.harness import Goal, Numbers, Term, false, proved, z3

t, G, K, K2, T, Q, k = z3.Reals("t G K K2 T Q k")
received, bound = z3.Reals("received bound")
swapped = z3.Bool("swapped")  # whether some digit has different owners
SIZES = [t > 0, G >= 1, K >= 1, K2 >= 1, T == t * G]


def gather(tile: Term, group: Term) -> Term:
    """What a gather of tiles receives."""
    return tile * (group - 1)


def all_to_all(tile: Term, group: Term) -> Term:
    """What an all_to_all (and a reduce_scatter) of tiles receives."""
    return tile - tile / group


def least(target: Term, product: Term, two_owners: Term) -> Term:
    """The bound of `bound`: target tile minus own part on the worst device."""
    return z3.If(two_owners, target, target * (1 - 1 / product))


@proved
def the_gather_makes_the_target_tile() -> Goal:
    """T = t G, one index digit more: local in the target, it is in the tile of the moves unless it
    is gathered after them; owned in the target, it is in neither."""
    local, gathered = z3.Bools("local gathered")
    facts = [T == t * G, k >= 1, z3.Implies(gathered, local)]
    target = z3.If(local, T * k, T)
    moved = z3.If(z3.And(local, z3.Not(gathered)), t * k, t)
    return Goal(facts, target == moved * z3.If(gathered, G * k, G))


@proved
def groups_of_paths_of_one_edge() -> Goal:
    """Q = K G, one index digit more: owned in the source and local in the target, it counts in Q.
    Its owner owns another digit in the target, which was local, and moves there; or it owns nothing
    and is gathered. Other digits count nowhere."""
    released, owner_again = z3.Bools("released owner_again")
    facts = [Q == K * G, k >= 1]
    moves = z3.If(z3.And(released, owner_again), K * k, K)
    gathers = z3.If(z3.And(released, z3.Not(owner_again)), G * k, G)
    return Goal(facts, z3.If(released, Q * k, Q) == moves * gathers)


@proved
def paths_of_one_edge_are_optimal() -> Goal:
    """Slices, one merged all_to_all and one gather (K = 1: a gather alone) receive the bound."""
    facts = [*SIZES, Q == K * G, z3.Not(swapped), bound == least(T, Q, swapped)]
    return Goal([*facts, received == all_to_all(t, K) + gather(t, G)], received == bound)


@proved
def cycles_are_optimal() -> Goal:
    """Every digit of a cycle has two owners, so the bound is T; permute and gather receive it."""
    facts = [*SIZES, swapped, bound == least(T, Q, swapped), received == t + gather(t, G)]
    return Goal(facts, received == bound)


@proved
def permute_and_all_to_all_below_twice() -> Goal:
    """Longer paths, or both: the bound is T, and one permute, one merged all_to_all and one gather
    receive T + t - t/K, which is below 2 T."""
    facts = [*SIZES, swapped, bound == least(T, Q, swapped)]
    facts += [received == t + all_to_all(t, K) + gather(t, G)]
    return Goal(facts, z3.And(received == bound + t - t / K, received < 2 * bound))


@proved
def two_all_to_alls_below_twice() -> Goal:
    """Paths of length two by two all_to_alls: below 2 T as well."""
    return Goal(SIZES, all_to_all(t, K) + all_to_all(t, K2) + gather(t, G) < 2 * T)


@proved
def slicing_idle_axes_pays_only_by_the_tile() -> Goal:
    """Slicing axes that are idle on both sides makes t smaller and G larger at one T: a permute and
    all_to_all then receive no more, T + t - t/K."""
    s = z3.Real("s")
    facts = [*SIZES, s >= 1]
    return Goal(facts, T + t / s - t / s / K <= T + t - t / K)


@proved
def all_reduce_is_reduce_scatter_and_gather() -> Goal:
    """2 s (k-1)/k is s (k-1)/k for the reduce_scatter and as much for gathering tiles of s/k."""
    return Goal(SIZES, all_to_all(t, K) + gather(t / K, K) == 2 * t * (K - 1) / K)


@false
def collectives_within_half_more() -> Goal:
    """FALSE: on a path of length two, the better of permute + all_to_all and two all_to_alls is
    within 1.5 times the bound."""
    k = z3.Int("k")
    size = z3.ToReal(k)
    facts = [k >= 2, k <= 6, K == size, K2 == size, t > 0, T == t]
    better = z3.Or(t + all_to_all(t, K) <= 1.5 * T, all_to_all(t, K) + all_to_all(t, K2) <= 1.5 * T)

    def problem(number: Numbers) -> tuple[str, str, str]:
        n = number(k)
        return f"x={n},y={n}", f"f32[{n}{{x}}, {n}{{y}}, {n}]", f"f32[{n}, {n}{{x}}, {n}{{y}}]"

    return Goal(facts, better, problem)
