"""Tiles: every element is held, by the right devices, and tile sizes multiply.

Induction over the factors of a dimension, major to minor; dimensions multiply likewise.
"""

from __future__ import annotations

from proofs.harness import Goal, Numbers, bounded, false, horner, proved, z3

tile, owned, n, k, rest, s = z3.Ints("tile owned n k rest s")
SIZES = [tile >= 1, owned >= 1, n >= 1, k >= 1, rest >= 1]


@proved
def without_factors() -> Goal:
    """Base: without factors the tile is the whole dimension."""
    return Goal([n >= 1, owned == 1, tile == n], tile * owned == n)


@proved
def an_owned_factor_divides_the_tile() -> Goal:
    """Step: a device factor of size k, which divides what remains, leaves a tile k times smaller;
    tile times owned sizes stays n."""
    facts = [*SIZES, tile * owned == n, tile == k * rest]
    return Goal(facts, rest * (owned * k) == n)


@proved
def a_local_factor_keeps_the_tile() -> Goal:
    """Step: a local factor of size k splits what remains into k times the rest; the tile stays."""
    facts = [*SIZES, tile * owned == n, tile == k * rest]
    return Goal(facts, (k * rest) * owned == n)


@proved
def dimensions_multiply() -> Goal:
    """Step: if the tile of the dimensions so far times what they own is their size, so it is with
    one dimension more."""
    tile2, owned2, n2 = z3.Ints("tile2 owned2 n2")
    facts = [*SIZES, tile2 >= 1, owned2 >= 1, tile * owned == n, tile2 * owned2 == n2]
    return Goal(facts, (tile * tile2) * (owned * owned2) == n * n2)


@proved
def the_product_of_factors_divides() -> Goal:
    """If the product of the factors divides n, so does the product of the owned ones alone."""
    local = z3.Int("local")
    facts = [*SIZES, local >= 1, n == (owned * local) * rest]
    return Goal(facts, n == owned * (local * rest))


@proved
def no_element_is_held_twice_by_a_device() -> Goal:
    """Two positions of a tile with one device's coordinate are two elements: step over digits,
    with an owned digit (equal on both) or a local one appended."""
    p, q, c, i, j, size, x = z3.Ints("p q c i j size x")
    facts = [
        *bounded((p, size), (q, size), (c, k), (i, x), (j, x)),
        horner([(p, size), (c, k), (i, x)]) == horner([(q, size), (c, k), (j, x)]),
    ]
    return Goal(facts, z3.And(p == q, i == j))


@proved
def every_element_has_an_owner() -> Goal:
    """An index is held at exactly one coordinate of the owner of a digit, index // weight % size:
    this is a coordinate, and with it the index is written by what is above and below."""
    index, weight, above = z3.Ints("index weight above")
    facts = [index >= 0, weight >= 1, k >= 1, above == index / weight]
    owner = above % k
    written = (above / k * k + owner) * weight + index % weight
    return Goal(facts, z3.And(*bounded((owner, k)), written == index))


@proved
def slices_gathers_and_moves_change_tiles_by_their_group() -> Goal:
    """With k dividing: a slice (or reduce_scatter) makes t/k of t, a gather (or sharded_to_partial)
    makes k t, an all_to_all first one and then the other, so t again."""
    t, sliced = z3.Ints("t sliced")
    facts = [t >= 1, k >= 1, sliced * k == t, owned >= 1, t * owned == n]
    return Goal(facts, z3.And(sliced * (owned * k) == n, (sliced * k) * owned == n))


@false
def a_tile_is_the_array_over_the_devices() -> Goal:
    """FALSE: the tile of an array over one axis is the array divided by all devices."""
    x, y = z3.Ints("x y")

    def problem(number: Numbers) -> tuple[str, str, str]:
        total = number(x) * number(y)
        mesh = f"x={number(x)},y={number(y)}"
        return mesh, f"f32[{total}{{x}}]", f"f32[{total}]"

    facts = [x >= 2, y >= 1, x <= 3, y <= 3, n == x * y, tile * x == n]
    return Goal(facts, tile * (x * y) == n, problem)
