"""What the proofs are about is what the product does: obligations with the product's numbers.

z3 proves formulas, and knows nothing of the code. Here each law's formulas are evaluated on random
cases (`tests/proofs/evaluate.py`), with types, traffic and bounds that the product computes: a bug
there makes a hypothesis or a claim false.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise, product
from math import ceil, gcd, lcm, prod

import numpy as np
import pytest

import redistrib as rd
from proofs import addends, bound, canonical, exchange, peak, reductions, refinement, rules, volume
from proofs import transposition as transposes
from redistrib.backends import simulator
from redistrib.synth.plan import collectives as c
from redistrib.synth.plan.bounds import lower_bound_elements
from redistrib.synth.plan.data import make_plan
from redistrib.synth.plan.pieces import exchange_senders
from redistrib.synth.plan.replicas import route_component
from redistrib.synth.plan.routing import exchange_traffic, permute_sources
from redistrib.synth.plan.transpose import dual
from redistrib.types.digits import DeviceDigit, IndexDigit, apart, divisors, inside
from redistrib.types.overlap import min_overlap
from redistrib.types.refinement import common_cuts, refine
from tests.generators import random_pair
from tests.problems import random_mesh, random_shape, random_step, random_type, random_walk
from tests.proofs.evaluate import require, sides, written

ROLES = transposes.FREE, transposes.OWNER, transposes.PARTIAL


def value(digit: DeviceDigit, position: int, mesh: rd.Mesh) -> int:
    """The coordinate of the device at a position on a digit, from the definition."""
    names = [name for name, _ in mesh.axes]
    below = prod(size for _, size in mesh.axes[names.index(digit.axis) + 1 :])
    axis = mesh.axis_size(digit.axis)
    return position // below % axis // (axis // digit.end) % digit.size


def moved_to(position: int, digit: DeviceDigit, wanted: int, mesh: rd.Mesh) -> int:
    """The position that differs in one digit, which has this value."""
    same = [
        other
        for other in range(mesh.num_devices)
        if value(digit, other, mesh) == wanted
        and all(
            value(part, other, mesh) == value(part, position, mesh)
            for name, size in mesh.axes
            for part in (DeviceDigit(name, 1, size),)
            if name != digit.axis
        )
        and _rest(digit, other, mesh) == _rest(digit, position, mesh)
    ]
    assert len(same) == 1
    return same[0]


def _rest(digit: DeviceDigit, position: int, mesh: rd.Mesh) -> tuple[int, int]:
    axis = mesh.axis_size(digit.axis)
    whole = value(DeviceDigit(digit.axis, 1, axis), position, mesh)
    return whole // (axis // digit.pre), whole % (axis // digit.end)


def role(t: rd.ArrayType, digit: DeviceDigit) -> int | None:
    """The role of a digit that a type does not cut, from its text."""
    if any(inside(digit, device) for device, _ in t.placements):
        return transposes.OWNER
    if any(inside(digit, device) for device in t.partial):
        return transposes.PARTIAL
    used = [*(device for device, _ in t.placements), *t.partial]
    return transposes.FREE if all(apart(digit, device) for device in used) else None


def pairs(count: int) -> Iterator[tuple[rd.ArrayType, rd.ArrayType]]:
    """Random pairs of types with elements and without partial axes."""
    for seed in range(count):
        src, dst = random_pair(random.Random(seed).choice, partial=False)
        if src.size and src.mesh.num_devices > 1:
            yield src, dst


def steps(count: int) -> Iterator[tuple[random.Random, rd.ArrayType, c.Collective]]:
    """Random types with a collective that is legal for them."""
    for seed in range(count):
        rng = random.Random(seed)
        mesh = random_mesh(rng)
        t = random_type(rng, mesh, random_shape(rng, mesh), partial=None)
        step = random_step(rng, t) if t.size else None
        if step is not None:
            yield rng, t, step


# --- typing rules (Theorem 2)


def test_each_digit_has_the_roles_of_the_rules_before_and_after() -> None:
    seen: Counter[str] = Counter()
    for _, t, step in steps(600):
        if step.collective in ("exchange", "collective_permute"):
            continue
        try:
            after = step.apply(t)
        except rd.LayoutError:
            continue
        for digit in step.axes:
            assert (role(t, digit), role(after, digit)) == transposes.RULES[step.collective]
            seen[step.collective] += 1
    assert len(seen) == 7
    assert min(seen.values()) >= 20


class Dimension:
    """The dimension of an index digit in a type, as `proofs/rules.py` takes it apart.

    A tile is a row of offsets (h, m, low), m only where the digit is local; `low` offsets below.
    """

    def __init__(self, t: rd.ArrayType, index: IndexDigit, position: int) -> None:
        self.indices = t.tile(position)[index.dim].tolist()
        self.weight = t.shape[index.dim] // index.end
        below = prod(i.size for _, i in t.placements if i.dim == index.dim and i.pre >= index.end)
        self.low = self.weight // below
        self.owned = any(i.dim == index.dim and not apart(i, index) for _, i in t.placements)
        self.stride = self.low if self.owned else index.size * self.low
        self.high = len(self.indices) // self.stride
        self.size = index.size

    def above(self, high: int, _device: int) -> int:
        return int(self.indices[high * self.stride]) // (self.size * self.weight)

    def under(self, low: int, _device: int) -> int:
        return int(self.indices[low]) % self.weight


def test_slices_take_the_elements_of_the_proof() -> None:
    seen: Counter[str] = Counter()
    for rng, t, step in steps(800):
        if not isinstance(step, (c.DynamicSlice, c.ReduceScatter)):
            continue
        device, index = step.placements[0]
        after = type(step)(((device, index),)).apply(t)
        position = rng.randrange(t.mesh.num_devices)
        dim = Dimension(t, index, position)
        wanted = after.tile(position)[index.dim].tolist()
        offset, u = rng.randrange(len(wanted)), value(device, position, t.mesh)
        h, low = divmod(offset, dim.low)
        sent = (h * index.size + u) * dim.low + low
        values = {
            "o": offset,
            "s": sent,
            "u": u,
            **written("program", offset, dim.high, dim.low),
            **written("after", offset, dim.high, dim.low),
            **written("before", sent, dim.high, index.size, dim.low),
        }
        sizes = (dim.high, index.size, dim.low)
        if isinstance(step, c.DynamicSlice):
            asked = written("asked s ", sent, *sizes)
            values |= {"H": sizes[0], "k": sizes[1], "L": sizes[2], "S": dim.weight, "c": 0}
            found = sides(rules.dynamic_slice, **values, **asked, above=dim.above, under=dim.under)
        else:
            asked = written("asked", sent, *sizes)
            values |= {"high": sizes[0], "parts": sizes[1], "low": sizes[2]}
            found = sides(
                reductions.reduce_scatter,
                **values,
                **asked,
                element=lambda a, b, d, dim=dim: dim.indices[(a * dim.size + b) * dim.low + d],
                total=lambda _, dim=dim, sent=sent: dim.indices[sent],
            )
        assert found == (dim.indices[sent], wanted[offset])
        seen[step.collective] += 1
    assert min(seen["dynamic_slice"], seen["reduce_scatter"]) >= 30


def test_gathers_put_the_elements_where_the_proof_does() -> None:
    seen = 0
    for rng, t, step in steps(600):
        if not isinstance(step, c.AllGather):
            continue
        device, index = step.placements[0]
        after = c.AllGather(((device, index),)).apply(t)
        position = rng.randrange(t.mesh.num_devices)
        dim = Dimension(t, index, position)
        wanted = after.tile(position)[index.dim].tolist()
        offset = rng.randrange(len(wanted))
        sizes = (dim.high, index.size, dim.low)
        program = written("program", offset, *sizes)
        sent = program["program0"] * dim.low + program["program2"]
        found = sides(
            rules.all_gather,
            o=offset,
            s=sent,
            c=0,
            S=dim.weight,
            **dict(zip("HkL", sizes, strict=True)),
            **program,
            **written("after", offset, *sizes),
            **written("before", sent, dim.high, dim.low),
            above=dim.above,
            under=dim.under,
        )
        sender = moved_to(position, device, program["program1"], t.mesh)
        assert found == (t.tile(sender)[index.dim][sent], wanted[offset])
        seen += 1
    assert seen >= 40


def test_moves_between_dimensions_are_those_of_the_proof() -> None:
    seen = 0
    for rng, t, step in steps(1500):
        if not isinstance(step, c.AllToAll) or step.moves[0].source.dim == step.moves[0].target.dim:
            continue
        move = step.moves[0]
        after = c.AllToAll((move,)).apply(t)
        position = rng.randrange(t.mesh.num_devices)
        u, k = value(move.device, position, t.mesh), move.device.size
        one, two = Dimension(t, move.source, position), Dimension(t, move.target, position)
        wanted = [indices.tolist() for indices in after.tile(position)]
        o, o2 = (rng.randrange(len(wanted[i.dim])) for i in (move.source, move.target))
        program = written("program", o, one.high, k, one.low)
        s = program["program0"] * one.low + program["program2"]
        program2 = written("program'", o2, two.high, two.low)
        s2 = (program2["program'0"] * k + u) * two.low + program2["program'1"]
        require(
            rules.all_to_all_between_dimensions,
            o=o,
            s=s,
            o2=o2,
            s2=s2,
            c=0,
            u=u,
            k=k,
            H=one.high,
            L=one.low,
            S=one.weight,
            W=two.weight,
            high2=two.high,
            low2=two.low,
            **program,
            **written("after", o, one.high, k, one.low),
            **written("before", s, one.high, one.low),
            **written("asked s ", s, one.high, one.low),
            **program2,
            **written("after'", o2, two.high, two.low),
            **written("before'", s2, two.high, k, two.low),
            **written("asked s2 ", s2, two.high, k, two.low),
            above=one.above,
            under=one.under,
            above2=two.above,
            under2=two.under,
        )
        # The two readings that the proof says are one: the sender's tile and the receiver's.
        sender = t.tile(moved_to(position, move.device, program["program1"], t.mesh))
        assert sender[move.source.dim][s] == wanted[move.source.dim][o]
        assert sender[move.target.dim][s2] == wanted[move.target.dim][o2]
        seen += 1
    assert seen >= 40


def test_permutes_send_tiles_as_the_proof_does() -> None:
    seen = 0
    for rng, t, step in steps(1500):
        if not isinstance(step, c.CollectivePermute) or step.table is not None:
            continue
        after, sources = step.apply(t), permute_sources(t.mesh, step)
        position = rng.randrange(t.mesh.num_devices)
        sender = int(sources[position])
        for number, (old, new) in enumerate(step.routes):
            owned = next(
                (i for device, i in t.placements if device == old),
                None,
            )
            if owned is None:
                continue
            dim = Dimension(t, owned, sender)
            wanted = after.tile(position)[owned.dim].tolist()
            offset = rng.randrange(len(wanted))
            found = sides(
                rules.collective_permute,
                o=offset,
                old=number,
                new=number,
                c=0,
                k=owned.size,
                H=dim.high,
                L=dim.low,
                S=dim.weight,
                sender={number: value(old, sender, t.mesh)},
                receiver={number: value(new, position, t.mesh)},
                **written("before", offset, dim.high, dim.low),
                **written("after", offset, dim.high, dim.low),
                above=dim.above,
                under=dim.under,
            )
            assert found == (dim.indices[offset], wanted[offset])
            seen += 1
    assert seen >= 40


# --- traffic and tiles (Theorems 5 and 7)


def test_the_tiles_of_steps_are_those_of_the_proof() -> None:
    seen: Counter[str] = Counter()
    for _, t, step in steps(500):
        try:
            after = step.apply(t)
        except rd.LayoutError:
            continue
        k, ends = step.group_size, {"src": t.tile_size, "dst": after.tile_size}
        match step.collective:
            case "dynamic_slice" | "reduce_scatter":
                law: Callable[..., object] = peak.slices_shrink
                names = {"t": t.tile_size, "after": after.tile_size}
            case "all_gather" | "sharded_to_partial":
                law, names = peak.gathers_grow_to_the_target, {}
                names = {"t": after.tile_size, "before": t.tile_size}
            case _:
                law, k = peak.moves_keep, 1
                names = {"t": t.tile_size, "after": after.tile_size}
        require(law, k=k, **ends, **names)  # type: ignore[arg-type]
        seen[step.collective] += 1
    assert len(seen) == 9


def test_the_traffic_of_steps_is_that_of_the_proof() -> None:
    seen: Counter[str] = Counter()
    for _, t, step in steps(600):
        if isinstance(step, c.Exchange):
            continue
        tile, k = t.tile_size, step.group_size
        received = step.tile_traffic(tile)[0]
        match step.collective:
            case "all_gather":
                assert received == volume.gather(tile, k)
            case "all_to_all" | "reduce_scatter":
                assert received == volume.all_to_all(tile, Fraction(k))
            case "all_reduce" if tile % k == 0:
                require(
                    volume.all_reduce_is_reduce_scatter_and_gather, t=tile, K=k, K2=1, G=1, T=tile
                )
                assert received == volume.all_to_all(tile, Fraction(k)) + volume.gather(
                    Fraction(tile, k), k
                )
            case "dynamic_slice" | "sharded_to_partial" | "replicated_to_partial":
                assert received == 0
            case "collective_permute":
                assert received in (0, tile)
        seen[step.collective] += 1
    assert len(seen) == 8


def test_plans_of_three_phases_receive_what_the_proof_says() -> None:
    seen: Counter[str] = Counter()
    for src, dst in pairs(900):
        digits = refine(src, dst)
        if not digits.aligned:
            continue
        plan = rd.plan(src, dst, strategy="collectives")
        moving = [s for s in plan.steps if s.communicates]
        kinds = [s.collective for s in moving]
        order = ["collective_permute", "all_to_all", "all_gather"]
        if kinds != [kind for kind in order if kind in kinds]:
            continue
        groups = {s.collective: s.group_size for s in moving}
        owners = {index: device for device, index in digits.dst.items()}
        swapped = any(owners.get(i, device) != device for device, i in digits.src.items())
        gathered = prod(i.size for i in digits.src.values() if i not in owners)
        t = dst.tile_size // groups.get("all_gather", 1)
        values = {
            "t": t,
            "T": dst.tile_size,
            "G": groups.get("all_gather", 1),
            "K": groups.get("all_to_all", 1),
            "K2": 1,
            "swapped": swapped,
            "bound": lower_bound_elements(src, dst),
            "received": plan.received_bytes // dst.itemsize,
        }
        if "collective_permute" not in kinds and not swapped:
            # Digits that are sliced and gathered again would make t smaller, and Q is not K G.
            require(volume.paths_of_one_edge_are_optimal, **values, Q=gathered)
            seen["paths"] += 1
        elif "collective_permute" in kinds and "all_to_all" not in kinds and swapped:
            require(volume.cycles_are_optimal, **values, Q=gathered)
            seen["cycles"] += 1
        elif "collective_permute" in kinds and swapped:
            require(volume.permute_and_all_to_all_below_twice, **values, Q=gathered)
            seen["both"] += 1
    assert min(seen["paths"], seen["cycles"]) >= 20, seen
    assert seen["both"] >= 3, seen


# --- transposition (Theorem 9)


def test_transposed_steps_are_those_of_the_proof() -> None:
    seen: Counter[str] = Counter()
    for seed in range(250):
        rng = random.Random(seed)
        mesh = random_mesh(rng)
        start = random_type(rng, mesh, random_shape(rng, mesh), partial=None)
        plan = random_walk(rng, start, 4)
        try:
            back = plan.transpose()
        except rd.LayoutError:
            continue
        assert [t.tile_size for t in back.types] == [t.tile_size for t in reversed(plan.types)]
        for t in plan.types if plan.src.size else ():
            for name, size in mesh.axes:
                digit = DeviceDigit(name, 1, size)
                before, after = role(t, digit), role(dual(t), digit)
                if before is not None and size > 1:
                    assert after == (transposes.PARTIAL, transposes.OWNER, transposes.FREE)[before]
        for step, turned, tile in zip(
            plan.steps, reversed(back.steps), [t.tile_size for t in plan.types], strict=False
        ):
            if isinstance(step, c.Exchange) or isinstance(turned, c.Exchange):
                continue
            assert turned.collective == transposes.TRANSPOSES[step.collective]
            received, after_size = step.tile_traffic(tile)
            assert turned.tile_traffic(after_size) == (received, tile)
            if isinstance(step, c.AllGather) and tile:
                require(transposes.received_bytes_are_the_same, t=tile, K=step.group_size)
            seen[step.collective] += 1
    assert len(seen) == 8


def test_the_pairing_of_the_proofs_holds_of_tiles() -> None:
    """<M x, y> = <x, M' y> for single steps, with any numbers in the tiles of all devices."""
    seen: Counter[str] = Counter()
    for rng, t, step in steps(400):
        if isinstance(step, c.Exchange) or t.reduction not in (None, "sum"):
            continue
        try:
            plan = make_plan(t, step.apply(t), "collectives", [step])
            back = plan.transpose()
        except rd.LayoutError:
            continue
        draw = np.random.default_rng(rng.randrange(1000))
        xs, ys = (
            [draw.integers(-9, 9, end.tile_shape, "i4") for _ in range(t.mesh.num_devices)]
            for end in (plan.src, plan.dst)
        )
        forth = simulator.run(plan, xs)
        home = simulator.run(back, ys)
        one, two = (
            sum(int((a * b).sum()) for a, b in zip(left, right, strict=True))
            for left, right in ((forth, ys), (xs, home))
        )
        assert one == two, (str(t), step)
        seen[step.collective] += 1
    assert len(seen) == 8


# --- the lower bound (Theorems 4 and 4a)


def test_the_bound_is_what_the_induction_makes_of_the_digits() -> None:
    swaps = 0
    for src, dst in pairs(150):
        digits = refine(src, dst)
        if not digits.aligned:
            continue
        owner, target = ({i: d for d, i in side.items()} for side in (digits.src, digits.dst))
        worst = dst.tile_size
        for position in range(src.mesh.num_devices):
            T, own, Q, agree = 1, 1, 1, True
            require(bound.without_digits, T=1, own=1, Q=1)
            for index in (i for dim in digits.dims for i in dim):
                so_far = {"T": T, "own": own, "Q": Q, "agree": agree, "k": index.size}
                had, has = owner.get(index), target.get(index)
                if has is None and had is None:
                    require(bound.local_on_both_sides, **so_far)
                    T, own = T * index.size, own * index.size
                elif has is None:
                    require(bound.gathered, **so_far)
                    T, Q = T * index.size, Q * index.size
                elif had is None or had == has:
                    u = value(has, position, src.mesh)
                    law = bound.owned_in_the_target_alone_or_by_one_digit
                    require(law, **so_far, u=u, value=u, local=had is None)
                else:
                    u, v = (value(digit, position, src.mesh) for digit in (had, has))
                    require(bound.different_owners, **so_far, u=u, v=v)
                    own, agree = own * (u == v), agree and u == v
                    swaps += 1
            tiles = (t.tile(position) for t in (src, dst))
            common = [len(np.intersect1d(a, b)) for a, b in zip(*tiles, strict=True)]
            assert (dst.tile_size, prod(common)) == (T, own)
            worst = min(worst, own)
        assert lower_bound_elements(src, dst) == dst.tile_size - worst
    assert swaps >= 100


MISALIGNED = (
    (6, "12", "x", "_2,x"),
    (6, "36", "x", "_3,x"),
    (10, "20", "x", "_2,x"),
    (12, "48", "x", "_8,x:(1)2,x:(2)3"),
)


@pytest.mark.parametrize(("one", "two"), list(product(MISALIGNED, repeat=2)))
def test_the_worst_device_is_the_worst_in_each_component(
    one: tuple[int, str, str, str], two: tuple[int, str, str, str]
) -> None:
    mesh = rd.Mesh(x=one[0], y=two[0])
    src, dst = (
        rd.ArrayType.parse(
            f"i8[{one[1]}{{{one[n]}}}, {two[1]}{{{two[n].replace('x', 'y')}}}]", mesh
        )
        for n in (2, 3)
    )
    overlaps = [
        [
            len(np.intersect1d(src.tile(at)[dim], dst.tile(at)[dim]))
            for at in (range(0, one[0] * two[0], two[0]), range(two[0]))[dim]
        ]
        for dim in range(2)
    ]
    c1, c2 = (counts.index(min(counts)) for counts in overlaps)
    for d1, d2 in product(range(one[0]), range(two[0])):
        require(
            bound.components_take_their_least_at_once,
            c1=c1,
            c2=c2,
            d1=d1,
            d2=d2,
            n1=one[0],
            n2=two[0],
            device=c1 * two[0] + c2,
            T=dst.tile_size,
            **{"overlap 1": overlaps[0].__getitem__, "overlap 2": overlaps[1].__getitem__},
        )
    worst = overlaps[0][c1] * overlaps[1][c2]
    assert lower_bound_elements(src, dst) == dst.tile_size - worst
    assert prod(min_overlap(part) for part in refine(src, dst).components()) == worst


def test_the_bound_of_partial_sums_is_that_of_the_proof() -> None:
    """All devices want all elements: K addends and r copies, one saved where one holds an addend."""
    for K, r in product((2, 3, 4), (1, 2, 3, 5)):
        mesh = rd.Mesh(x=K, y=r)
        src = rd.ArrayType.parse(f"i64[{K * r}] sum{{x}}", mesh)
        dst = rd.ArrayType.parse(f"i64[{K * r}]", mesh)
        receipts = addends.least(K, K * r, 1)
        assert lower_bound_elements(src, dst) == ceil(Fraction(receipts * dst.size, K * r))


# --- refinement (Theorem 3)


def test_cuts_are_closed_under_the_images_of_the_proof() -> None:
    images = 0
    for src, dst in pairs(300):
        cuts = common_cuts([src, dst])
        for device, index in (*src.placements, *dst.placements):
            n = src.mesh.axis_size(device.axis)
            uses = {"lo": index.pre, "hi": index.end, "pre": device.pre, "end": device.end, "n": n}
            for f in divisors(device.size)[1:-1]:
                in_dim = index.pre * f in cuts[index.dim]
                assert in_dim == (device.pre * f in cuts[device.axis])
                if in_dim:
                    w, rest = device.size // f, n // device.end
                    require(refinement.images_are_divisors, **uses, f=f, w=w, rest=rest, k=1)
                    require(refinement.images_are_inside, **uses, f=f, w=w, rest=rest, k=1)
                    images += 1
        digits = refine(src, dst)
        if digits.aligned:
            for _, index in (*src.placements, *dst.placements):
                for digit in digits.dims[index.dim]:
                    require(
                        refinement.aligned_digits_are_owned_whole,
                        c=digit.pre,
                        d=digit.end,
                        lo=index.pre,
                        hi=index.end,
                    )
    assert images >= 100


def test_the_joints_of_misaligned_runs_are_those_between_lcm_and_gcd() -> None:
    """Each cut that the refinement adds is inside the runs of both sides, by the proof's witnesses;
    by these laws lcm and gcd are where the runs that overlap may be parted."""
    joints = 0
    for src, dst in pairs(1500):
        digits = refine(src, dst)
        if digits.aligned:
            continue
        for dim, runs in enumerate(digits.dims):
            for cut in [run.end for run in runs[:-1]]:
                for a, b in product(
                    *([i for _, i in t.placements if i.dim == dim] for t in (src, dst))
                ):
                    low, high = lcm(a.pre, b.pre), gcd(a.end, b.end)
                    if not (low <= cut <= high and a.pre < cut < a.end and b.pre < cut < b.end):
                        continue
                    require(
                        refinement.what_lies_between_lcm_and_gcd_is_inside_both_runs,
                        **{"a": a.pre, "b": b.pre, "a'": a.end, "b'": b.end, "c": cut},
                        low=low,
                        p=low // a.pre,
                        q=low // b.pre,
                        u=cut // low,
                        high=high,
                        v=high // cut,
                        r=a.end // high,
                        s=b.end // high,
                    )
                    joints += 1
    assert joints >= 20


# --- the canonical form (Theorem 1)


def test_factors_merge_as_the_proof_says() -> None:
    for a, b, k, prefix, suffix in product((2, 3), (1, 2), (2, 3), (2,), (1, 2)):
        mesh = rd.Mesh(x=prefix, y=k)
        n = prefix * a * b * k * suffix
        apart_, merged = (
            rd.ArrayType.parse(f"i8[{n}{{x,{local},y}}]", mesh)
            for local in (f"_{a},_{b}", f"_{a * b}")
        )
        assert apart_ == merged
        for major, minor in product(range(a), range(b)):
            for x, y, low in product(range(prefix), range(k), range(suffix)):
                require(
                    canonical.local_neighbours_merge,
                    prefix=x,
                    s=prefix,
                    major=major,
                    a=a,
                    minor=minor,
                    b=b,
                    suffix=y * suffix + low,
                    w=k * suffix,
                )
                index = ((x * a + major) * b + minor) * k * suffix + y * suffix + low
                held = apart_.tile(x * k + y)[0].tolist()
                assert held[(major * b + minor) * suffix + low] == index


# --- the exchange (Theorem 2)


def test_senders_are_those_of_the_proof() -> None:
    seen = 0
    for src, dst in pairs(250):
        step = exchange_traffic(src, dst).exchange
        for receiver in range(min(src.mesh.num_devices, 4)):
            tile = dst.tile(receiver)
            wanted = [indices[len(indices) // 2 :][:1] for indices in tile]
            (sender,) = exchange_senders(step, src, np.array(receiver), wanted, src.shape).reshape(
                -1
            )
            for device, index in src.placements:
                element, weight = int(wanted[index.dim][0]), src.shape[index.dim] // index.end
                above, rest = divmod(element, weight)
                prefix, digit = divmod(above, index.size)
                require(
                    exchange.the_sender_holds_the_element,
                    wanted=element,
                    weight=weight,
                    above=above,
                    rest=rest,
                    prefix=prefix,
                    digit=digit,
                    k=index.size,
                )
                assert value(device, int(sender), src.mesh) == digit
                seen += 1
            held = src.tile(receiver)
            if all(w[0] in h for w, h in zip(wanted, held, strict=True)):
                assert sender == receiver  # `exchange.own_piece_comes_first`
    assert seen >= 300


def test_replicas_of_misaligned_exchanges_are_loaded_as_the_proof_says() -> None:
    spreads = 0
    for src, dst in pairs(1500):
        for component in refine(src, dst).components():
            if component.aligned:
                continue
            routed = route_component(component)
            if routed.table is None:
                continue
            owners = [device for device, _ in component.src]
            tile = prod(run.size for run in component.dims) // prod(d.size for d in owners)
            served = routed.served.tolist()
            held = _owned_values(component.axes, owners)
            for p, q in pairwise(range(len(served))):
                if held[p] == held[q]:
                    require(
                        exchange.no_replica_is_loaded_above_the_mean_and_a_piece,
                        n=1,
                        mine=served[p],
                        other=served[q],
                        times=served[p],
                        total=served[p],
                        spread=0,
                        largest=tile,
                    )
                    spreads += 1
    assert spreads >= 50


def _owned_values(
    axes: tuple[DeviceDigit, ...], owners: list[DeviceDigit]
) -> list[tuple[int, ...]]:
    """Per position over the axes the values of these digits."""
    found = []
    for coordinates in product(*(range(axis.size) for axis in axes)):
        values = []
        for digit in owners:
            number = next(n for n, axis in enumerate(axes) if inside(digit, axis))
            values.append(coordinates[number] // (axes[number].end // digit.end) % digit.size)
        found.append(tuple(values))
    return found
