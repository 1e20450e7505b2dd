"""Volume: what plans of the three phases receive, against the lower bound.

t is the tile of the moves, G the group of the gather, so T = t G is the target tile; K the group of
the all_to_all. By `bound`, the bound is T if some digit has different owners on the two sides, else
T (1 - 1/Q) with Q the sizes that are owned in the source and local in the target. All are reals.
"""

from __future__ import annotations

from proofs.harness import Goal, Numbers, Term, false, proved, z3

t, G, K, K2, T, Q, own, least = z3.Reals("t G K K2 T Q own least")
SIZES = [t > 0, G >= 1, K >= 1, K2 >= 1, T == t * G]


def gather(tile: Term, group: Term) -> Term:
    """What a gather of tiles receives."""
    return tile * (group - 1)


def all_to_all(tile: Term, group: Term) -> Term:
    """What an all_to_all (and a reduce_scatter) of tiles receives."""
    return tile - tile / group


@proved
def direct_receives_the_bound() -> Goal:
    """An exchange delivers to each device its target tile minus its own part: at most the bound,
    and the bound to a device with the least own part."""
    given = [0 <= least, least <= own, own <= T]
    return Goal(given, z3.And(T - own <= T - least, z3.Implies(own == least, T - own == T - least)))


@proved
def a_gather_alone_is_optimal() -> Goal:
    """Slices and one gather: Q = G, and the gather receives the bound."""
    return Goal([*SIZES, Q == G], gather(t, G) == T * (1 - 1 / Q))


@proved
def one_merged_all_to_all_is_optimal() -> Goal:
    """Paths of length one only: no digit has two owners; the moved and the gathered digits are
    what the source owns and the target does not, so Q = K G, and the steps receive the bound."""
    return Goal([*SIZES, Q == K * G], all_to_all(t, K) + gather(t, G) == T * (1 - 1 / Q))


@proved
def one_permute_is_optimal() -> Goal:
    """Cycles only: every digit of them has two owners, so the bound is T, and permute plus gather
    receive it."""
    return Goal(SIZES, t + gather(t, G) == T)


@proved
def permute_and_all_to_all_below_twice() -> Goal:
    """Longer paths, or both: the bound is T, and one permute, one merged all_to_all and one gather
    receive T + t - t/K, which is below 2 T."""
    total = t + all_to_all(t, K) + gather(t, G)
    return Goal(SIZES, z3.And(total == T + t - t / K, total < 2 * T))


@proved
def two_all_to_alls_below_twice() -> Goal:
    """Paths of length two by two all_to_alls: below 2 T as well."""
    return Goal(SIZES, all_to_all(t, K) + all_to_all(t, K2) + gather(t, G) < 2 * T)


@proved
def slicing_idle_axes_pays_only_by_the_tile() -> Goal:
    """Slicing axes that are idle on both sides makes t smaller and G larger at one T: a permute and
    all_to_all then receive no more, T + t - t/K."""
    s = z3.Real("s")
    given = [*SIZES, s >= 1]
    return Goal(given, T + t / s - t / s / K <= T + t - t / K)


@proved
def at_most_three_collectives() -> Goal:
    """A permute, an all_to_all and a gather, each at most once, are at most three."""
    permutes, moves, gathers = z3.Ints("permutes moves gathers")
    given = [fact for n in (permutes, moves, gathers) for fact in (n >= 0, n <= 1)]
    return Goal(given, permutes + moves + gathers <= 3)


@proved
def all_reduce_is_reduce_scatter_and_gather() -> Goal:
    """2 s (k-1)/k is s (k-1)/k for the reduce_scatter and as much for gathering tiles of s/k."""
    return Goal(SIZES, all_to_all(t, K) + gather(t / K, K) == 2 * t * (K - 1) / K)


@proved
def the_bound_is_a_quasi_metric() -> Goal:
    """From a to c by way of b a device receives at least what it lacks of c in a: with counts of
    elements in the regions of three sets."""
    bc, ac, b, c = z3.Reals("bc ac b c")  # in b and c but not a, ..., in c alone
    regions = [x >= 0 for x in (bc, ac, b, c)]
    to_c = c + bc
    to_b_then_c = (b + bc) + (c + ac)
    return Goal(regions, to_c <= to_b_then_c)


@false
def collectives_within_half_more() -> Goal:
    """FALSE: on a path of length two, the better of permute + all_to_all and two all_to_alls is
    within 1.5 times the bound."""
    k = z3.Int("k")
    size = z3.ToReal(k)
    given = [k >= 2, k <= 6, K == size, K2 == size, t > 0, T == t]
    better = z3.Or(t + all_to_all(t, K) <= 1.5 * T, all_to_all(t, K) + all_to_all(t, K2) <= 1.5 * T)

    def problem(number: Numbers) -> tuple[str, str, str]:
        n = number(k)
        return f"x={n},y={n}", f"f32[{n}{{x}}, {n}{{y}}, {n}]", f"f32[{n}, {n}{{x}}, {n}{{y}}]"

    return Goal(given, better, problem)
