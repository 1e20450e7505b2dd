"""Models as they run: within their budget, message by message, rounded on the wire."""

from __future__ import annotations

import random

import numpy as np
import pytest

import redistrib as rd
from redistrib.backends import simulator
from redistrib.backends.model_messages import batches
from redistrib.backends.wire import BLOCK, wire_of
from redistrib.models.tile_views import View
from redistrib.models.transfers import Transfer
from redistrib.types.dtypes import numpy_dtype
from tests.models import budgets
from tests.models.random_moves import random_case
from tests.repetitions import repetitions


@pytest.mark.parametrize("ratio", budgets.RATIOS[: repetitions(1, 3)])
@pytest.mark.parametrize("serve", budgets.MESHES, ids=str)
def test_live_bytes_stay_within_the_budget(serve: rd.Mesh, ratio: float) -> None:
    plan = budgets.llama(serve, ratio)
    assert len(plan.moves) == 291
    assert plan.peak_bytes <= plan.memory_budget
    tiles: dict[int, dict[str, np.ndarray]] = {device: {} for device in plan.devices}
    for name in plan.src:
        for device in plan.devices:
            tiles[device][name] = budgets.tile_of(plan.src[name], name, device)
    run = simulator.ModelRun(plan, tiles)
    for _ in run.chunks():
        pass
    worst = max(run.live_bytes.values())
    assert 0.9 * plan.least_budget_bytes < worst <= plan.peak_bytes
    for name in ("embed", "3.down", "norm"):
        for device, targets in run.targets.items():
            assert np.array_equal(targets[name], budgets.tile_of(plan.dst[name], name, device))


def test_below_the_least_budget_the_answer_names_it() -> None:
    for serve in budgets.MESHES:
        with pytest.raises(rd.InfeasibleError) as caught:
            budgets.llama(serve, 1.01, layers=2)
        least = caught.value.least_bytes
        ratio = 1.01 * least / caught.value.memory_limit
        plan = budgets.llama(serve, ratio * (1 + 1e-6), layers=2)
        assert plan.least_budget_bytes == least <= plan.memory_budget


def test_random_moves_hold_no_more_than_they_state() -> None:
    for seed in range(repetitions(60, 2000)):
        case = random_case(seed, uneven=seed % 2 == 1)
        tiles = simulator.scatter_model(case.arrays, case.plan.src)
        together = random.Random(seed).choice((1, 1 << 20))
        run = simulator.ModelRun(case.plan, tiles, batch_bytes=together)
        told = list(run.chunks())
        assert max(run.live_bytes.values()) <= case.plan.peak_bytes, seed
        assert told[-1].arrays == told[-1].of_arrays == len(case.plan.moves)
        meant = simulator.scatter_model(case.meant, case.plan.dst)
        for device, targets in meant.items():
            assert all(np.array_equal(run.targets[device][n], t) for n, t in targets.items()), seed


def test_moves_run_together_within_the_peak() -> None:
    plan = budgets.llama(rd.Mesh(tp=8), 2.0, layers=2)
    together = list(batches(plan, 1 << 40))
    assert [move for batch in together for move in batch.moves] == list(plan.moves)
    assert 1 < len(together) < len(plan.moves)
    assert {name for batch in together for name in batch.released} == set(plan.src)
    first = 0
    for batch in together:
        first, last = first + len(batch.moves), first + len(batch.moves) - 1
        held, scratch = plan.together(last - len(batch.moves) + 1, last)
        # One message arrives while another leaves; both are part of what the plan says is held.
        assert 0 < 2 * batch.message_bytes <= scratch
        assert held <= plan.peak_bytes


def test_a_transfer_is_cut_to_its_elements() -> None:
    rng = random.Random(5)
    for _ in range(100):
        runs = tuple((rng.randint(1, 4), 10**k, rng.choice((0, 7**k))) for k in (3, 2, 1, 0))
        whole = Transfer(0, 1, "t", "s", View(2, 3, runs), ("f64", "f32"))
        most = rng.choice((1, 4, 12, 40, 4000))
        pieces = list(whole.cut(most))
        assert all(piece.wire_bytes <= max(most, 4) for piece in pieces)
        pairs = sorted(pair for piece in pieces for pair in elements(piece.view))
        assert pairs == sorted(elements(whole.view))


def elements(view: View) -> list[tuple[int, int]]:
    """Of a view the elements of target and source."""
    return [
        (
            view.target_offset + sum(k * t for k, (_, t, _) in zip(at, view.runs, strict=True)),
            view.source_offset + sum(k * s for k, (_, _, s) in zip(at, view.runs, strict=True)),
        )
        for at in np.ndindex(*(n for n, _, _ in view.runs))
    ]


@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32", "f64"])
@pytest.mark.parametrize("name", ["bf16", "int8"])
def test_what_is_rounded_stays_within_its_bound(name: str, dtype: str) -> None:
    rng = np.random.default_rng(3)
    wire = wire_of(name)
    for size in (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 7):
        scale = 10.0 ** rng.integers(-4, 5, size)
        values = (rng.standard_normal(size) * np.minimum(scale, 1e4)).astype(numpy_dtype(dtype))
        sent = wire.encoded(values)
        assert sent.nbytes == wire.size(size, dtype)
        back = wire.decoded(sent, size, values.dtype)
        assert back.dtype == values.dtype
        exact, got = values.astype("f8"), back.astype("f8")
        if name == "bf16":
            bound = np.abs(exact) * 2.0**-8 if dtype in ("f32", "f64") else 0 * exact
        else:
            largest = [np.abs(exact[k : k + BLOCK]).max() for k in range(0, size, BLOCK)]
            narrow = 2 if dtype in ("f16", "bf16") else 1  # back in the dtype itself
            bound = np.repeat(largest, BLOCK)[:size] * narrow / 253
        assert (np.abs(exact - got) <= bound).all()


def test_odd_values_on_the_wire() -> None:
    for name in ("bf16", "int8"):
        wire = wire_of(name)
        ones = np.ones(3 * BLOCK, "f4")
        assert np.array_equal(wire.decoded(wire.encoded(0 * ones), ones.size, ones.dtype), 0 * ones)
        odd = ones.copy()
        odd[BLOCK], odd[BLOCK + 1] = np.inf, np.nan
        back = wire.decoded(wire.encoded(odd), odd.size, odd.dtype)
        assert not np.isfinite(back[BLOCK : BLOCK + 2]).any()
        assert np.array_equal(back[:BLOCK], ones[:BLOCK])
        assert np.array_equal(back[2 * BLOCK :], ones[2 * BLOCK :])
        whole = np.arange(7, dtype="i4")
        assert np.array_equal(wire.decoded(wire.encoded(whole), 7, whole.dtype), whole)
    for wrong in ("f32", "int4", 8, b"bf16", []):
        with pytest.raises(rd.BackendError, match="wire_dtype is 'bf16', 'int8' or None"):
            wire_of(wrong)


def test_a_move_rounds_what_crosses_alone() -> None:
    """Each device keeps its quarter; what comes from another is rounded, integers are not."""
    mesh = rd.Mesh(x=4)
    src = {"w": ("f32[512{x}, 4]", mesh), "n": ("i32[512{x}]", mesh)}
    plan = rd.plan_model(src, {"w": ("f32[512, 4]", mesh), "n": ("i32[512]", mesh)})
    values = np.random.default_rng(0).standard_normal((512, 4)).astype("f4")
    arrays = {"w": values, "n": np.arange(512, dtype="i4")}
    tiles = simulator.scatter_model(arrays, plan.src)
    for name, bound in (("bf16", 2.0**-8), ("int8", 1 / 253)):
        made = simulator.run_model(plan, tiles, wire_dtype=name)
        for device in mesh.ids:
            own = slice(device * 128, device * 128 + 128)
            assert np.array_equal(made[device]["w"][own], values[own])
            assert np.array_equal(made[device]["n"], arrays["n"])
            gap = np.abs(made[device]["w"] - values)
            assert 0 < gap.max() <= bound * np.abs(values).max()
