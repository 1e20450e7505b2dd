"""The proofs of bounds, cuts and exchanges with the product's numbers: random pairs of types.

As in `test_laws_of_steps.py`, the formulas that z3 proves for symbolic sizes are evaluated with the
numbers of the product.
"""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import pairwise, product
from math import ceil, lcm, prod

import numpy as np
import pytest

import redistrib as rd
from proofs import addends, bound, canonical, exchange, refinement, volume
from redistrib.synth.plan.bounds import lower_bound_elements
from redistrib.synth.plan.pieces import exchange_senders
from redistrib.synth.plan.replicas import route_component
from redistrib.synth.plan.routing import exchange_traffic
from redistrib.types.digits import DeviceDigit, divisors, inside
from redistrib.types.overlap import meetings, min_overlap
from redistrib.types.refinement import common_cuts, refine
from tests.proofs.cases import pairs, value
from tests.proofs.evaluate import require

# --- plans of three phases (Theorem 7)


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


# --- the lower bound (Theorems 4 and 4a)


def test_the_bound_is_what_the_induction_makes_of_the_digits() -> None:
    swaps = 0
    for src, dst in pairs(120):
        digits = refine(src, dst)
        if not digits.aligned:
            continue
        owner, target = ({i: d for d, i in side.items()} for side in (digits.src, digits.dst))
        worst = dst.tile_size
        for position in range(src.mesh.num_devices):
            tile, own, gathered, agree = 1, 1, 1, True
            require(bound.without_digits, T=1, own=1, Q=1)
            for index in (i for dim in digits.dims for i in dim):
                so_far = {"T": tile, "own": own, "Q": gathered, "agree": agree, "k": index.size}
                had, has = owner.get(index), target.get(index)
                if has is None and had is None:
                    require(bound.local_on_both_sides, **so_far)
                    tile, own = tile * index.size, own * index.size
                elif has is None:
                    require(bound.gathered, **so_far)
                    tile, gathered = tile * index.size, gathered * index.size
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
            assert (dst.tile_size, prod(common)) == (tile, own)
            worst = min(worst, own)
        assert lower_bound_elements(src, dst) == dst.tile_size - worst
    assert swaps >= 100


MISALIGNED = (
    (6, 12, ("x", "_2,x")),
    (6, 36, ("x", "_3,x")),
    (10, 20, ("x", "_2,x")),
    (12, 48, ("x", "_8,x:(1)2,x:(2)3")),
)


@pytest.mark.parametrize(("one", "two"), list(product(MISALIGNED, repeat=2)))
def test_the_worst_device_is_the_worst_in_each_component(
    one: tuple[int, int, tuple[str, str]], two: tuple[int, int, tuple[str, str]]
) -> None:
    mesh = rd.Mesh(x=one[0], y=two[0])
    src, dst = (
        rd.ArrayType.parse(
            f"i8[{one[1]}{{{one[2][n]}}}, {two[1]}{{{two[2][n].replace('x', 'y')}}}]", mesh
        )
        for n in range(2)
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
    """All devices want all elements, as n copies, one saved where somebody holds an addend."""
    for addends_, replicas in product((2, 3, 4), (1, 2, 3, 5)):
        devices = addends_ * replicas
        mesh = rd.Mesh(x=addends_, y=replicas)
        src, dst = (rd.ArrayType.parse(f"i64[30]{end}", mesh) for end in (" sum{x}", ""))
        receipts = addends.least(addends_, devices, 1)
        assert lower_bound_elements(src, dst) == ceil(Fraction(receipts * dst.size, devices))


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


def test_misaligned_runs_are_parted_at_the_least_common_multiple() -> None:
    """What is local on both sides below a and b is so below lcm(a, b), which is therefore a cut."""
    parted = 0
    for src, dst in pairs(1000):
        digits = refine(src, dst)
        if digits.aligned:
            continue
        for n, runs, factors in zip(
            src.shape, digits.dims, zip(src.dims, dst.dims, strict=True), strict=True
        ):
            a, b = (prod(factor.size for factor in side) for side in factors)
            low = lcm(a, b)
            assert low in {1, *(run.end for run in runs)}
            witnesses = {"p": low // a, "q": low // b, "u": 1, "v": n // low, "r": 1, "s": 1}
            require(
                refinement.what_lies_between_lcm_and_gcd_is_inside_both_runs,
                **{"a": a, "b": b, "a'": n, "b'": n, "c": low, "low": low, "high": n},
                **witnesses,
            )
            parted += low not in (a, b)
    assert parted >= 50


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


def test_devices_of_an_aligned_exchange_serve_alike() -> None:
    """What `exchange.replicas_share_the_load` concludes, counted over elements and receivers."""
    seen = 0
    for src, dst in pairs(500):
        devices = np.arange(src.mesh.num_devices)
        if not refine(src, dst).aligned or dst.tile_size * len(devices) > 4096:
            continue
        step = exchange_traffic(src, dst).exchange
        served = np.zeros(len(devices), int)
        for receiver in devices:
            wanted = np.ix_(*dst.tile(int(receiver)))
            senders = exchange_senders(step, src, np.array(receiver), wanted, src.shape)
            senders = np.broadcast_to(senders, dst.tile_shape).reshape(-1)
            served += np.bincount(senders, minlength=len(devices))
        assert served.tolist() == [dst.tile_size] * len(devices)
        seen += bool(step.replicas)
    assert seen >= 5


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
            piece = prod(int(met.sizes.max()) for met in meetings(component))
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
                        largest=piece,
                    )
                    spreads += 1
    assert spreads >= 50


def test_senders_without_a_table_serve_what_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are too many pieces for a table, they are counted for groups of runs apart."""
    monkeypatch.setattr("redistrib.synth.plan.replicas.MAX_ROUTED", 0)
    route_component.cache_clear()
    seen = 0
    for src, dst in pairs(800):
        devices = np.arange(src.mesh.num_devices)
        if refine(src, dst).aligned or not 0 < dst.tile_size * len(devices) <= 1024:
            continue
        found = exchange_traffic(src, dst)
        sent = np.zeros(len(devices), int)
        for receiver in devices:
            wanted = np.ix_(*dst.tile(int(receiver)))
            senders = exchange_senders(found.exchange, src, np.array(receiver), wanted, src.shape)
            senders = np.broadcast_to(senders, dst.tile_shape).reshape(-1)
            sent += np.bincount(senders[senders != receiver], minlength=len(devices))
        assert found.sent == sent.max(), f"{src} -> {dst}"
        seen += 1
    route_component.cache_clear()
    assert seen >= 20


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
