"""At most one permute: any re-ownership at constant tile is one permute and one all_to_all.

The device digits that change what they own form chains u1, ..., um over index digits 0, ..., m:
u(j) owns j-1 in the source and should own j in the target. In a path, 0 is local in the target and
m in the source; in a cycle they are one. The length m and the position j are symbolic.
"""

from __future__ import annotations

from proofs.harness import Goal, Numbers, Term, bounded, false, proved, z3

Int = z3.IntSort()
owns = z3.Function("owns", Int, Int)
after = z3.Function("after", Int, Int)
j, m, i = z3.Ints("j m i")
CHAIN = [m >= 1, 1 <= j, j <= m]


def source(place: Term) -> Term:
    """What a chain is: u(j) owns j - 1 in the source."""
    return owns(place) == place - 1


def permuted() -> list[Term]:
    """The routes (u(j+1) -> u(j)) and (u1 -> um): each digit gets what its predecessor owned."""
    return [after(j) == z3.If(j < m, owns(j + 1), owns(1)), source(j + 1), source(1)]


@proved
def the_routes_are_a_permutation() -> Goal:
    """Routes to two different digits of a chain come from two different digits of it."""
    origin, other = z3.If(j < m, j + 1, 1), z3.If(i < m, i + 1, 1)
    facts = [*CHAIN, 1 <= i, i <= m, i != j]
    return Goal(facts, z3.And(origin != other, origin >= 1, origin <= m))


@proved
def a_permute_settles_all_but_the_last() -> Goal:
    """After the permute u(j) owns j, which is its target, for all j < m; um owns 0."""
    return Goal([*CHAIN, *permuted()], after(j) == z3.If(j < m, j, 0))


@proved
def a_cycle_needs_no_more() -> Goal:
    """In a cycle the index digits m and 0 are one, so u(j) should own j modulo m: after the permute
    it does, um too."""
    return Goal([*CHAIN, *permuted()], after(j) % m == j % m)


@proved
def a_path_ends_in_one_move() -> Goal:
    """In a path the digit that owns 0 after the permute moves from there to m, in one all_to_all.
    No digit owns m before it, so all_to_all's rule applies, and then every digit is on its target:
    paths of any length have length one after the permute."""
    final = z3.If(after(j) == 0, m, after(j))
    return Goal([*CHAIN, *permuted()], z3.And(after(j) != m, final == j))


@proved
def chains_are_disjoint() -> Goal:
    """The next digit of a chain is the owner in the source of what one owns in the target. Two
    digits with one next digit are one digit, as an index digit has one owner on each side: so
    chains are paths and cycles, and share no digit."""
    target, owner, of = (z3.Function(name, Int, Int) for name in ("target", "owner", "of"))
    u, v = z3.Ints("u v")
    facts = [
        owns(owner(target(u))) == target(u),  # the owner in the source of an index digit owns it
        owns(owner(target(v))) == target(v),
        of(target(u)) == u,  # and so in the target
        of(target(v)) == v,
        owner(target(u)) == owner(target(v)),
    ]
    return Goal(facts, u == v)


@proved
def one_permute_serves_all_chains() -> Goal:
    """The routes of all chains together are a permutation. A digit is at a place of a chain, each
    chain has its length, and the origin of a digit is the next place of its chain or the first:
    digits with one origin are one."""
    digit = z3.Function("digit", Int, Int, Int)
    chain, place = z3.Function("chain", Int, Int), z3.Function("place", Int, Int)
    length = z3.Function("length", Int, Int)
    c, d = z3.Ints("c d")
    facts, origins = [], []
    for of, position in ((c, i), (d, j)):
        origin = digit(of, z3.If(position < length(of), position + 1, 1))
        facts += [1 <= position, position <= length(of)]
        # Chains are disjoint: a digit tells its chain and its place there.
        facts += [
            chain(origin) == of,
            place(origin) == z3.If(position < length(of), position + 1, 1),
        ]
        origins.append(origin)
    return Goal([*facts, origins[0] == origins[1]], digit(c, i) == digit(d, j))


@proved
def one_all_to_all_serves_all_paths() -> Goal:
    """The last moves of different paths, each from place 0 of its path to its last place, free and
    take different index digits, as paths share none: they merge into one all_to_all."""
    index = z3.Function("index", Int, Int, Int)
    path, place = z3.Function("path", Int, Int), z3.Function("place", Int, Int)
    length = z3.Function("length", Int, Int)
    p, q = z3.Ints("p q")
    ends = [index(x, end) for x in (p, q) for end in (z3.IntVal(0), length(x))]
    facts = [p != q, length(p) >= 1, length(q) >= 1]
    for end in ends:
        facts += [path(end) == end.arg(0), place(end) == end.arg(1)]
    return Goal(facts, z3.Distinct(ends))


@proved
def two_all_to_alls_do_paths_of_length_two() -> Goal:
    """u2 moves from 1 to 2, which nobody owns; then nobody owns 1, u1 moves there from 0, and both
    digits are where they should be."""
    first, second = z3.Function("first", Int, Int), z3.Function("second", Int, Int)
    facts = [source(z3.IntVal(1)), source(z3.IntVal(2)), z3.Or(j == 1, j == 2)]
    facts += [first(j) == z3.If(j == 2, 2, owns(j)), second(j) == z3.If(j == 1, 1, first(j))]
    return Goal(facts, z3.And(owns(j) != 2, first(j) != 1, second(j) == j))


@proved
def slicing_the_free_end_closes_a_path() -> Goal:
    """A chain whose first digit owns nothing in the source, and whose last index digit m is local:
    if u1 slices m, the routes of a permute, u(j+1) -> u(j) and u1 -> um, put all on their targets,
    with no all_to_all after it."""
    sliced = z3.Function("sliced", Int, Int)

    def slices(place: Term) -> Term:
        return sliced(place) == z3.If(place == 1, m, owns(place))

    facts = [*CHAIN, slices(z3.IntVal(1)), slices(j + 1), z3.Implies(j + 1 > 1, source(j + 1))]
    facts += [after(j) == z3.If(j < m, sliced(j + 1), sliced(1))]
    return Goal(facts, after(j) == j)


@false
def one_all_to_all_does_any_path() -> Goal:
    """FALSE: one all_to_all moves every digit of a path to its target, which has to be local."""
    k = z3.Int("k")

    def problem(number: Numbers) -> tuple[str, str, str]:
        n = number(k)
        return f"x={n},y={n}", f"f32[{n}{{x}}, {n}{{y}}, {n}]", f"f32[{n}, {n}{{x}}, {n}{{y}}]"

    facts = [*bounded((k, 4)), k >= 2, m == 2, 1 <= i, i <= m, 1 <= j, j <= m, source(i)]
    return Goal(facts, owns(i) != j, problem)
