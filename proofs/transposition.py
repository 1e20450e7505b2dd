"""Transposition: backpropagation runs the transposed steps backwards, at the same cost.

Each step is a linear map on the tiles of all devices. The transpose M' of M is the map with
<M x, y> = <x, M' y>. Groups have a symbolic size k, so sums over a group go by induction. Types
turn into duals: a device digit that is free becomes partial and the reverse; an owner stays one.
"""

from __future__ import annotations

from proofs.harness import Goal, Numbers, Term, false, proved, z3

Int = z3.IntSort()
y = z3.Function("y", Int, z3.RealSort())
total = z3.Function("total", Int, z3.RealSort())
paired = z3.Function("paired", Int, z3.RealSort())
x = z3.Real("x")
n, k, u, m = z3.Ints("n k u m")
t, K = z3.Reals("t K")

FREE, OWNER, PARTIAL = 0, 1, 2
RULES = {
    "dynamic_slice": (FREE, OWNER),
    "all_gather": (OWNER, FREE),
    "all_to_all": (OWNER, OWNER),
    "collective_permute": (OWNER, OWNER),
    "reduce_scatter": (PARTIAL, OWNER),
    "all_reduce": (PARTIAL, FREE),
    "replicated_to_partial": (FREE, PARTIAL),
    "sharded_to_partial": (OWNER, PARTIAL),
}
TRANSPOSES = {
    "dynamic_slice": "sharded_to_partial",
    "all_gather": "reduce_scatter",
    "all_to_all": "all_to_all",
    "collective_permute": "collective_permute",
    "reduce_scatter": "all_gather",
    "all_reduce": "all_reduce",
    "replicated_to_partial": "replicated_to_partial",
    "sharded_to_partial": "dynamic_slice",
}


def dual(role: Term) -> Term:
    """The role of a device digit in the dual type."""
    return z3.If(role == FREE, PARTIAL, z3.If(role == PARTIAL, FREE, OWNER))


def phase(before: int, after: int) -> int:
    """Which phase a step is of: 0 if it shrinks the tile, 2 if it makes it grow, else 1."""
    return 1 + (before == OWNER) - (after == OWNER)


def tile(role: int) -> Term:
    """The tile of n k elements, over the k devices of a digit in this role."""
    return n if role == OWNER else n * k


@proved
def transposed_steps_have_dual_types() -> Goal:
    """The rule of each transposed step leads from the dual of the step's result to the dual of its
    source, and transposing twice gives the step back."""
    claims = []
    for name, (before, after) in RULES.items():
        transpose = TRANSPOSES[name]
        rule = [z3.IntVal(role) for role in RULES[transpose]]
        claims += [rule[0] == dual(z3.IntVal(after)), rule[1] == dual(z3.IntVal(before))]
        claims.append(z3.BoolVal(TRANSPOSES[transpose] == name))
    return Goal([], z3.And(claims))


@proved
def the_dual_of_the_dual() -> Goal:
    """The dual of the dual of a type is the type."""
    role = z3.Int("role")
    return Goal([role >= 0, role <= 2], dual(dual(role)) == role)


@proved
def gather_and_reduce_scatter_base() -> Goal:
    """all_gather gives x to all k devices of a group, reduce_scatter gives the owner of x the sum
    of y(0), ..., y(k-1). Base: for no device both pairings are 0."""
    return Goal([total(0) == 0, paired(0) == 0], paired(0) == x * total(0))


@proved
def gather_and_reduce_scatter_step() -> Goal:
    """Step: <gather x, y> over n + 1 devices is x y(0) + ... + x y(n), <x, reduce_scatter y> is x
    times the sum; if they agree for n, they agree for n + 1."""
    facts = [
        paired(n) == x * total(n),
        paired(n + 1) == paired(n) + x * y(n),
        total(n + 1) == total(n) + y(n),
    ]
    return Goal(facts, paired(n + 1) == x * total(n + 1))


@proved
def slice_and_sharded_to_partial() -> Goal:
    """dynamic_slice gives device u part u of a tile, sharded_to_partial puts a part at u and zeros
    elsewhere: for part m, <slice, y> is x y if m = u, else nothing, and so is the other pairing."""
    part = z3.Real("part")
    sliced = z3.If(m == u, x * part, 0)
    spread = x * z3.If(m == u, part, 0)
    return Goal([0 <= m, m < k, 0 <= u, u < k], sliced == spread)


@proved
def moves_are_inverted() -> Goal:
    """all_to_all and permutes send each element to one place: what is at place f(i) pairs with y
    there, and the inverse takes y from there to i, where it pairs with the same element."""
    f, inverse = z3.Function("f", Int, Int), z3.Function("inverse", Int, Int)
    element, moved = (z3.Function(name, Int, z3.RealSort()) for name in ("element", "moved"))
    i = z3.Int("i")
    facts = [inverse(f(i)) == i, moved(f(i)) == element(inverse(f(i)))]
    return Goal(facts, moved(f(i)) * y(f(i)) == element(i) * y(f(i)))


@proved
def all_reduce_is_symmetric() -> Goal:
    """all_reduce: <all_reduce x, y> adds y(u) times the sum of x over devices u, so it is the
    product of both sums, as <x, all_reduce y> is. Step: with one device more it still is."""
    xs, ys, pairing, more = z3.Reals("xs ys pairing more")
    facts = [pairing == xs * ys]
    return Goal(facts, pairing + xs * more == xs * (ys + more))


@proved
def replicated_to_partial_is_symmetric() -> Goal:
    """replicated_to_partial keeps the data of coordinate 0 and zeroes the rest: a diagonal map."""
    keep = z3.If(u == 0, 1, 0)
    yu = y(u)
    return Goal([0 <= u, u < k], (keep * x) * yu == x * (keep * yu))


@proved
def steps_compose_backwards() -> Goal:
    """<N M x, y> = <M x, N' y> = <x, M' N' y>: the steps so far and one step more are transposed by
    their transposes in the reverse order."""
    tiles = z3.DeclareSort("Tiles")
    so_far, step, so_far_back, step_back = (
        z3.Function(name, tiles, tiles) for name in ("M", "N", "M'", "N'")
    )
    pairing = z3.Function("pairing", tiles, tiles, z3.RealSort())
    a, b = z3.Consts("a b", tiles)
    facts = [
        pairing(step(so_far(a)), b) == pairing(so_far(a), step_back(b)),
        pairing(so_far(a), step_back(b)) == pairing(a, so_far_back(step_back(b))),
    ]
    return Goal(facts, pairing(step(so_far(a)), b) == pairing(a, so_far_back(step_back(b))))


@proved
def received_bytes_are_the_same() -> Goal:
    """A gather of tiles of t receives t (K-1), its transpose reduces a tile of t K and receives
    t K (K-1) / K, the same; all_to_all, permute and all_reduce have one tile and group both ways,
    slices and spreads receive nothing."""
    return Goal([t > 0, K >= 1], t * (K - 1) == (t * K) - (t * K) / K)


@proved
def tiles_are_the_same_backwards() -> Goal:
    """A tile is the array over what is owned, and the dual of an owner is one: so each transposed
    step starts with the tile that its step ends in and ends with the tile that it starts with, and
    a transposed plan has the same peak."""
    claims = []
    for name, (before, after) in RULES.items():
        start, end = RULES[TRANSPOSES[name]]
        claims += [tile(start) == tile(after), tile(end) == tile(before)]
    return Goal([n >= 1, k >= 1], z3.And(claims))


@proved
def phases_stay_in_order() -> Goal:
    """Shrinking, moving and growing steps (0, 1, 2) turn into growing, moving and shrinking ones,
    which backwards is the same order: a three-phase plan stays one, with its bounds."""
    first, second = z3.Ints("first second")
    claims = [phase(*RULES[TRANSPOSES[name]]) == 2 - phase(*RULES[name]) for name in RULES]
    return Goal([first <= second], z3.And(*map(z3.BoolVal, claims), 2 - second <= 2 - first))


@false
def a_slice_transposes_to_a_gather() -> Goal:
    """FALSE: all_gather, the inverse of dynamic_slice, is its transpose: summed over a group of two
    or more, <slice x, y> = <x, gather y> for a replicated x."""
    size = z3.Int("size")

    def problem(number: Numbers) -> tuple[str, str, str]:
        return f"x={number(size)}", f"f32[{number(size)}]", f"f32[{number(size)}{{x}}]"

    # Each of `size` devices has one part: one product of the sliced, `size` of the gathered.
    facts = [size >= 2, size <= 4, x == 1, y(0) == 1]
    return Goal(facts, x * y(0) == z3.ToReal(size) * x * y(0), problem)
