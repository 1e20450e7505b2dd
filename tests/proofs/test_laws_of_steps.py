"""The proofs of collectives and transposes with the product's numbers: random types and steps.

z3 proves formulas, and knows nothing of the code. Here each law's formulas are evaluated on random
cases (`tests/proofs/evaluate.py`), with types, tiles and traffic that the product computes: a bug
there makes a hypothesis or a claim false. The laws of pairs are in `test_laws_of_pairs.py`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from math import prod

import numpy as np

import redistrib as rd
from proofs import peak, reductions, rules, volume
from proofs import transposition as transposes
from proofs.harness import z3
from redistrib.backends import simulator
from redistrib.synth.plan import collectives as c
from redistrib.synth.plan.data import make_plan
from redistrib.synth.plan.routing import permute_sources
from redistrib.synth.plan.transpose import dual
from redistrib.types.digits import DeviceDigit, IndexDigit, inside
from tests.problems import random_mesh, random_shape, random_type, random_walk
from tests.proofs.cases import moved_to, role, steps, value
from tests.proofs.evaluate import reader, require, sides, written

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
    assert min(seen.values()) >= 10


class Dimension:
    """The dimension of an index digit in a type, as `proofs/rules.py` takes it apart.

    A tile is a row of offsets (h, m, low), m only where the digit is local; `low` offsets below.
    """

    def __init__(self, t: rd.ArrayType, index: IndexDigit, position: int) -> None:
        self.indices = t.tile(position)[index.dim].tolist()
        self.weight = t.shape[index.dim] // index.end
        owned = [i for _, i in t.placements if i.dim == index.dim]
        below = prod(max(i.end // max(i.pre, index.end), 1) for i in owned)
        self.low = self.weight // below
        self.stride = self.low
        if not any(inside(index, i) for i in owned):
            self.stride *= index.size
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
    assert min(seen["dynamic_slice"], seen["reduce_scatter"]) >= 15


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
            case "exchange" if t.tile_size != after.tile_size:
                continue
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
            case _:
                assert tile % k  # all_reduce in chunks that differ
        seen[step.collective] += 1
    assert len(seen) == 8


# --- transposition (Theorem 9)


def test_transposed_steps_are_those_of_the_proof() -> None:
    seen: Counter[str] = Counter()
    for seed in range(250):
        rng = random.Random(seed)
        mesh = random_mesh(rng)
        start = random_type(rng, mesh, random_shape(rng, mesh), partial=None)
        plan = random_walk(rng, start, 4)
        if not start.size:
            continue
        try:
            back = plan.transpose()
        except rd.LayoutError:
            continue
        assert [t.tile_size for t in back.types] == [t.tile_size for t in reversed(plan.types)]
        for t in (t for t in plan.types if t.reduction in (None, "sum")):
            for name, size in mesh.axes:
                digit = DeviceDigit(name, 1, size)
                before, after = role(t, digit), role(dual(t), digit)
                if before is not None and size > 1:
                    assert after == reader(transposes.dual(z3.IntVal(before)))({})
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


def test_each_transposed_step_leads_from_dual_to_dual() -> None:
    """The law of the types, which does not rest on what `Plan.transpose` refuses."""
    seen: Counter[str] = Counter()
    turned = 0
    for _, t, step in steps(1200):
        if isinstance(step, c.Exchange) or getattr(step, "table", None) is not None:
            continue
        try:
            after = step.apply(t)
        except rd.LayoutError:
            continue
        if {t.reduction, after.reduction} <= {None, "sum"}:
            back = step.transposed(t)
            assert back.apply(dual(after)) == dual(t)
            seen[step.collective] += 1
            turned += isinstance(step, c.CollectivePermute) and step.transposed(t) != step
    assert len(seen) == 8
    assert turned >= 5
