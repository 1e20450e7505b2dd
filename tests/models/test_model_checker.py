"""The checker of model plans refuses what a replay, element by element, finds to be wrong."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import fields, replace
from math import prod

import numpy as np
import pytest

import redistrib as rd
from redistrib.errors import CheckError
from redistrib.models.alike import Kind, Kinds, same_transfers
from redistrib.models.check import check_model
from redistrib.models.coverage import fault, strided
from redistrib.models.model_plan import ModelPlan
from redistrib.models.moves import Move
from redistrib.models.tile_views import View
from redistrib.models.transfers import Transfer
from tests.models.random_moves import random_case
from tests.models.replay import WrongError, replay
from tests.repetitions import repetitions

DTYPES = ("f32", "f64", "i32", "f16")


class Changed(ModelPlan):
    """A plan with other transfers than those that its moves have: for each move, all of them."""

    def transfers(self, move: Move, device: int) -> Iterator[Transfer]:
        for transfer in vars(self)["changed"][move.target]:
            if device in (transfer.sender, transfer.receiver):
                yield transfer

    def pattern(self, move: Move) -> object:
        return move.target


def changed(rng: random.Random, plan: ModelPlan) -> Changed:
    """The plan with one transfer changed, on both of its devices."""
    every = {
        move.target: [
            transfer
            for device in plan.devices
            for transfer in plan.transfers(move, device)
            if transfer.receiver == device
        ]
        for move in plan.moves
    }
    transfers = rng.choice([found for found in every.values() if found])
    place = rng.randrange(len(transfers))
    before = transfers[place]
    after = other(rng, plan, before)
    transfers[place : place + 1] = after
    made = Changed(**{field.name: getattr(plan, field.name) for field in fields(plan)})
    vars(made)["changed"] = every
    vars(made)["late"] = any(transfer.phase != before.phase for transfer in after)
    return made


def other(rng: random.Random, plan: ModelPlan, transfer: Transfer) -> list[Transfer]:
    """What stands in place of a transfer."""
    view = transfer.view
    step = rng.choice((-1, 1, 1, 2))
    match rng.randrange(12):
        case 0:
            return []
        case 1:
            return [transfer, transfer]
        case 2:
            view = view._replace(target_offset=view.target_offset + step)
        case 3:
            view = view._replace(source_offset=view.source_offset + step)
        case 4 | 5 | 6 if view.runs:
            runs = [list(run) for run in view.runs]
            run = rng.choice(runs)
            column = rng.randrange(3)
            run[column] = max(column == 0, run[column] + step)
            view = View(*view[:2], tuple((n, t, s) for n, t, s in runs))
        case 7 if view.runs:  # the same, in two halves, and so right
            (count, target, source), *rest = view.runs
            half = count // 2
            if not half:
                return [transfer]
            later = View(view[0] + half * target, view[1] + half * source, view.runs)
            return [
                transfer._replace(view=v._replace(runs=((n, target, source), *rest)))
                for v, n in ((view, half), (later, count - half))
            ]
        case 8 if not transfer.phase:
            return [transfer._replace(sender=rng.choice((*plan.devices, None)))]
        case 9:
            return [transfer._replace(dtypes=(*transfer.dtypes[:-1], rng.choice(DTYPES)))]
        case 10 if transfer.sender is not None:
            return [transfer._replace(phase=1 - transfer.phase % 2)]
        case 11 if transfer.sender is not None:
            return [transfer._replace(source=rng.choice((*plan.src, *plan.dst)))]
    return [transfer._replace(view=view)]


def test_the_checker_is_right_about_changed_schedules() -> None:
    rng = random.Random("changed schedules")
    accepted = refused = 0
    for seed in range(repetitions(150, 4000)):
        plan = random_case(seed, uneven=seed % 2 == 1).plan
        if not any(len(plan.schedule(device)) for device in plan.devices):
            continue
        bad = changed(rng, plan)
        try:
            replay(bad)
            right = True
        except (WrongError, IndexError, ValueError, KeyError, AttributeError):
            right = False
        try:
            check_model(bad)
            seen = True
        except CheckError:
            seen = False
        # A replay takes things in order; the checker asks for what each phase may do.
        assert seen <= right, seed
        assert seen == right or vars(bad)["late"], seed
        accepted += right
        refused += not right
    assert refused > 2 * accepted > 0


def test_views_that_cover_a_tile() -> None:
    """Against a count of every element; views of a box of digits, some of them changed."""
    rng = random.Random("coverage")
    right = 0
    for _ in range(repetitions(300, 5000)):
        sizes = [rng.choice((1, 2, 3, 4)) for _ in range(4)]
        strides = [prod(sizes[n + 1 :]) for n in range(4)]
        cut = rng.randrange(4)
        views = []
        for n in range(sizes[cut]):
            runs = [(k, s) for d, (k, s) in enumerate(zip(sizes, strides, strict=True)) if d != cut]
            start = n * strides[cut]
            if rng.random() < 0.15:
                start += rng.choice((-1, 1))
            if rng.random() < 0.1 and runs:
                k, s = runs.pop(rng.randrange(len(runs)))
                runs.append((max(1, k + rng.choice((-1, 1))), s + rng.choice((0, 1))))
            views.append(strided(start, runs))
        counts = np.zeros(prod(sizes), np.int64)
        outside = False
        for first, digits in views:
            places = (
                [first + sum(p) for p in np.ndindex(())]
                if not digits
                else [
                    first + sum(i * s for i, (_, s) in zip(index, digits, strict=True))
                    for index in np.ndindex(*(n for n, _ in digits))
                ]
            )
            outside |= min(places) < 0 or max(places) >= counts.size
            for place in places:
                if 0 <= place < counts.size:
                    counts[place] += 1
        exact = not outside and bool((counts == 1).all())
        assert (fault(views, prod(sizes)) is None) == exact, views
        right += exact
    assert right > 50


def with_transfers(plan: ModelPlan, transfers: dict[str, list[Transfer]]) -> Changed:
    made = Changed(**{field.name: getattr(plan, field.name) for field in fields(plan)})
    vars(made)["changed"] = transfers
    return made


def test_a_transfer_may_be_in_two_parts_of_a_concat_if_it_is_right_in_both() -> None:
    mesh, one = rd.Mesh({"x": 1}), rd.Mesh({"x": 1}, devices=[1])
    whole = Transfer(0, 1, "t", "w", View(0, 0, ((8, 1, 1),)), ("f32",))
    for second, right in (("w[4:8]", True), ("w[8:12]", False)):
        weights = rd.WeightMap.parse(f"t = concat(0, w[0:4], {second})")
        plan = rd.plan_model({"w": ("f32[12]", mesh)}, {"t": ("f32[8]", one)}, weights=weights)
        check_model(plan)
        merged = with_transfers(plan, {"t": [whole]})
        if right:
            check_model(merged)
        else:
            with pytest.raises(CheckError, match="does not get its value"):
                check_model(merged)


class SendsMore(ModelPlan):
    """A plan whose device 0 sends what nobody waits for."""

    def transfers(self, move: Move, device: int) -> Iterator[Transfer]:
        for transfer in super().transfers(move, device):
            yield transfer
            if transfer.sender == device == 0:
                yield transfer


def layers(seed: int) -> ModelPlan:
    """A model of six layers in three stages, two of them on devices that others have, too."""
    rng = random.Random(f"layers {seed}")
    sizes = {"x": rng.choice((1, 2, 3)), "y": rng.choice((1, 2))}
    count = prod(sizes.values())
    first = rng.choice((0, count, 3 * count))
    meshes = [rd.Mesh(sizes, devices=range(n * count, n * count + count)) for n in range(3)]
    serve = rd.Mesh({"z": rng.choice((2, 3, 6)), "r": 2})
    serve = rd.Mesh(serve.axes, devices=range(first, first + serve.num_devices))
    rows, columns = rng.choice((("x", "y"), ("y", "x"), ("x,y", "")))
    a = f"f32[12{{{rows}}}, 12{{{columns}}}]" if columns else f"f32[12{{{rows}}}, 12]"
    types = {f"a.{i}": (a, meshes[i // 2]) for i in range(6)}
    types |= {f"b.{i}": ("f32[12, 12]", meshes[i // 2]) for i in range(6)}
    text = rng.choice(
        (
            "t.{i} = concat(0, a.{i}, b.{i})",
            "t.{i} = concat(0, b.{i}, b.0)",
            'concat(1, rearrange(a.{i}, "m n -> n m"), b.{i})[::2, 6:18]',
            "t.{i} = cast(stack(0, a.{i}, b.{i}), bf16)[:, {i}:6]",
        )
    )
    w = rd.WeightMap.parse(text if "=" in text else f"t.{{i}} = {text}")
    shapes = w.shapes(dict.fromkeys(types, ((12, 12), "f32")))
    dst = {
        name: (f"{dtype}[{', '.join([f'{n}' for n in shape[:-1]] + [f'{shape[-1]}{{z}}'])}]", serve)
        for name, (shape, dtype) in shapes.items()
    }
    return rd.plan_model(types, dst, weights=w, least_part=rng.choice((1, 1 << 20)))


def test_moves_of_a_kind_have_the_same_transfers_on_all_devices() -> None:
    shared = 0
    for seed in range(repetitions(12, 1000)):
        plan = layers(seed)
        kinds = Kinds(plan)
        first: dict[object, Kind] = {}
        for move in plan.moves:
            kind = kinds.of(move, None, list(dict.fromkeys(name for name, _ in move.sources)))
            like = first.setdefault(kind.key, kind)
            shared += like is not kind
            for turn in range(len(kind.devices) if like is not kind else 0):
                assert same_transfers(plan, like, kind, turn), (seed, move.target)
        check_model(plan)
    assert shared > 4


class WrongLater(ModelPlan):
    """A plan that says that all layers are alike, and has other transfers in the last."""

    def transfers(self, move: Move, device: int) -> Iterator[Transfer]:
        for transfer in super().transfers(move, device):
            view = transfer.view
            last = move is self.moves[-1]
            yield transfer._replace(view=View(view[0], view[1] + last, view.runs))


def test_a_layer_that_is_not_like_the_others_is_found() -> None:
    stages = [rd.Mesh({"x": 2}, devices=range(2 * n, 2 * n + 2)) for n in range(4)]
    types = {f"{n}": ("f32[4{x}, 4]", mesh) for n, mesh in enumerate(stages)}
    plan = rd.plan_model(types, dict.fromkeys(types, ("f32[4, 4]", stages[0])))
    wrong = WrongLater(**{field.name: getattr(plan, field.name) for field in fields(plan)})
    with pytest.raises(CheckError):
        check_model(wrong)


def test_a_layer_that_takes_the_steps_or_sources_of_another_is_found() -> None:
    stages = [rd.Mesh({"x": 2}, devices=range(2 * n, 2 * n + 2)) for n in range(2)]
    src = {f"{x}.{n}": ("f32[8{x}]", stages[n]) for n in range(2) for x in "ab"}
    serve = rd.Mesh({"y": 2}, devices=(8, 9))
    for first, second in (("a.0[0:4]", "a.1[4:8]"), ("concat(0, a.0, b.0)", "concat(0, a.1, b.1)")):
        w = rd.WeightMap.parse(f"t.0 = {first}\nt.1 = {second}")
        size = 4 if "[" in first else 16
        dst = {f"t.{n}": (f"f32[{size}{{y}}]", serve) for n in range(2)}
        plan = rd.plan_model(src, dst, weights=w)
        check_model(plan)
        one, other = plan.moves
        changed = {"steps": one.steps} if size == 4 else {"sources": other.sources[::-1]}
        with pytest.raises(CheckError):
            check_model(replace(plan, moves=(one, replace(other, **changed))))


def test_more_transfers_than_are_followed_are_refused_at_once() -> None:
    mesh = rd.Mesh(d=4096)
    plan = rd.plan_model({"w": ("f32[4096{d}, 4096]", mesh)}, {"w": ("f32[4096, 4096{d}]", mesh)})
    with pytest.raises(CheckError, match="16777216 transfers or more"):
        check_model(plan)


def test_what_nobody_waits_for_is_found() -> None:
    mesh = rd.Mesh(x=2)
    plan = rd.plan_model({"w": ("f32[4{x}]", mesh)}, {"w": ("f32[4]", mesh)})
    more = SendsMore(**{field.name: getattr(plan, field.name) for field in fields(plan)})
    with pytest.raises(CheckError, match="is not what others send"):
        check_model(more)


def test_a_model_of_real_size_is_checked() -> None:
    """Llama-3 70B's shapes: 70 billion elements on 64 devices to 32, one layer of each stage."""
    stages = [rd.Mesh({"fsdp": 16}, devices=range(16 * n, 16 * n + 16)) for n in range(4)]
    serve = rd.Mesh({"dp": 4, "tp": 8}, devices=range(64, 96))
    rows = {"q": 8192, "k": 1024, "v": 1024, "up": 28672}
    src = {
        f"{n}.{x}": (f"bf16[{size}{{fsdp}}, 8192]", stages[n])
        for n in range(4)
        for x, size in rows.items()
    } | {"embed": ("bf16[128256{fsdp}, 8192]", stages[0])}
    dst = {f"{n}.qkv": ("bf16[8192{tp}|1024{tp}|1024{tp}, 8192]", serve) for n in range(4)}
    dst |= {f"{n}.up": ("bf16[8192, 28672{tp}]", serve) for n in range(4)}
    dst |= {"embed": ("bf16[128256{tp,dp}:ceil, 8192]", serve)}
    w = rd.WeightMap.parse(
        """
        {n}.qkv = concat(0, {n}.q, {n}.k, {n}.v)
        {n}.up = rearrange({n}.up, "a b -> b a")
        """
    )
    plan = rd.plan_model(src, dst, weights=w)
    assert rd.check(plan)["received_bytes"] == plan.received_bytes
    transfers = changed(random.Random(0), plan)
    with pytest.raises(CheckError):
        check_model(transfers)
