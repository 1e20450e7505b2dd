"""The lower bound of partial sums: how often the devices receive something of one element.

An element has K addends in the source, each on the devices that hold it. In the target each *row*
of r devices wants one value, the same on all of them, and the values of all rows add up to the
element; so every addend reaches all devices of some row. A receipt is a message about the element,
computed from addends of it. docs/theory.md, section 4, says how these obligations make the proof.
"""

from __future__ import annotations

from proofs.harness import Goal, Numbers, Term, bounded, false, proved, z3

K, r, h, held, rows, stay = z3.Ints("K r h held rows stay")
receipts, parts, joined = z3.Ints("receipts parts joined")
finals, inner, outside, last = z3.Ints("finals inner outside last")
SIZES = [K >= 2, r >= 1, rows >= 1, h >= 0, h <= 1]


def least(addends: Term, copies: Term, saved: Term) -> Term:
    """Receipts that an element takes if its addends are brought together."""
    return addends + copies - 1 - saved


@proved
def a_receipt_joins_two_parts_at_most() -> Goal:
    """Draw a line for each receipt. All devices with one addend are one point, every other device
    is a point of its own; with K + outside points, as many parts are left as there were points
    less the receipts, or more. Step: one receipt more."""
    more = z3.Int("more")
    points = K + outside
    facts = [receipts >= points - parts, more >= 0, more <= 1]
    return Goal(facts, receipts + 1 >= points - (parts - more))


@proved
def the_last_row_of_a_part_is_served_after_it() -> Goal:
    """Every device of a row that wants several addends has a last receipt. What brought the addends
    of a part to the first complete devices of its rows came before the row that was complete last
    was served: so of the last receipts at most r for each other row and one are among them, and
    all receipts are K - 1 + r - 1 at least, one more for each device without addends."""
    tree = K + outside - 1
    facts = [
        *SIZES,
        outside >= 0,
        finals == rows * r,
        inner <= (rows - 1) * r + 1,  # last receipts among those of the tree
        receipts >= finals + (tree - inner),
    ]
    return Goal(facts, receipts >= least(K, r, 1 - outside))


@proved
def parts_apart_take_no_less() -> Goal:
    """Two parts with rows of r > 1 devices take no less than one part with the addends of both."""
    first, second = z3.Ints("first second")
    facts = [r >= 2, first >= 1, second >= 1]
    return Goal(facts, least(first, r, 1) + least(second, r, 1) >= least(first + second, r, 1))


@proved
def rows_of_one_device_save_what_they_hold() -> Goal:
    """With r = 1 a part saves one receipt only where its row holds one of its addends: of K addends
    as many receipts are saved as there are such parts, and these take different rows."""
    saved, more, new = z3.Ints("saved more new")
    facts = [receipts >= K - saved, more >= 1, 0 <= new, new <= 1]
    return Goal(facts, receipts + (more - new) >= (K + more) - (saved + new))


@proved
def addends_that_go_alone_are_dearer() -> Goal:
    """If every addend goes to a row of its own, each device of the row that does not hold it takes
    a receipt. Where at most half of a row does, that is no less than all to one row: with K = 2 + a
    and r = 2 + b, twice as much is K r = 4 + 2a + 2b + a b, and a b is not negative."""
    a, b, ab, overlap, alone = z3.Ints("a b ab overlap alone")
    facts = [
        *(x >= 0 for x in (a, b, ab)),  # ab stands for a * b
        K == 2 + a,
        r == 2 + b,
        2 * alone >= 4 + 2 * a + 2 * b + ab,  # K (r - overlap), and 2 overlap <= r
        overlap >= 0,
    ]
    return Goal(facts, alone >= least(K, r, 2 - 1))


@proved
def half_of_a_row_at_most_holds_an_addend() -> Goal:
    """A digit of size k that owns or is partial in the source and is free in the target: of a row,
    whose devices have all its values, those that hold an addend have one of them."""
    k, group = z3.Ints("k group")
    facts = [k >= 2, group >= 1, r == k * group]
    return Goal(facts, 2 * group <= r)


@proved
def addends_that_stay_are_not_brought() -> Goal:
    """Where whole rows hold an addend, `stay` of the K addends may stay; the others, of which there
    are some, are brought together with one of these or beside them, and take r - 1 more."""
    facts = [*SIZES, 1 <= stay, stay < K, receipts >= least(K - stay + 1, r, 1)]
    return Goal(facts, receipts >= least(K, r, stay))


@proved
def a_device_of_a_row_receives_what_the_row_lacks() -> Goal:
    """A row has one tile among its devices. Of an element whose addends the row does not all hold,
    a device of it receives something; so the worst of `rows` devices receives its share. Step of
    the sum over devices: one more device, which receives no more than the worst."""
    worst, total, mine, count = z3.Ints("worst total mine count")
    share = z3.Function("share", z3.IntSort(), z3.IntSort())  # count times the worst
    facts = [
        count >= 1,
        total <= share(count),
        mine <= worst,
        share(count + 1) == share(count) + worst,
    ]
    return Goal(facts, total + mine <= share(count + 1))


@proved
def a_maximum_is_not_made_of_parts_of_a_sum() -> Goal:
    """If the sum of two addends were the greater of two values, one for each addend, then lowering
    the other addend would not lower it: some row wants all addends."""
    first = z3.Function("first", z3.IntSort(), z3.IntSort())
    second = z3.Function("second", z3.IntSort(), z3.IntSort())
    x, y = z3.Ints("x y")

    def greater(a: Term, b: Term) -> Term:
        return z3.If(first(a) >= second(b), first(a), second(b))

    points = [(x, y), (x - 1, y), (x, y - 1)]
    return Goal([], z3.Not(z3.And([greater(a, b) == a + b for a, b in points])))


@proved
def a_sum_is_not_made_of_parts_of_a_maximum() -> Goal:
    """Nor is the greater of two addends the sum of two values, one for each."""
    first = z3.Function("first", z3.IntSort(), z3.IntSort())
    second = z3.Function("second", z3.IntSort(), z3.IntSort())
    x = z3.Int("x")
    points = [(x, x), (x + 1, x), (x, x + 1), (x + 1, x + 1)]
    sums = [first(a) + second(b) == z3.If(a >= b, a, b) for a, b in points]
    return Goal([], z3.Not(z3.And(sums)))


@false
def every_addend_moves_to_its_own_row() -> Goal:
    """FALSE: a sum that stays a sum over the same axis takes as many receipts as moving each addend
    to the devices that want it, as if it were a value."""
    facts = [*bounded((r, 4)), r >= 2, K == 2]

    def problem(number: Numbers) -> tuple[str, str, str]:
        n = number(r)
        return f"x=2,y={n}", f"i64[{2 * n}, {n}{{y}}] sum{{x}}", f"i64[{2 * n}, {n}] sum{{x}}"

    return Goal(facts, least(K, r, 1) >= K * (r - 1), problem)
