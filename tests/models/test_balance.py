"""The worst sender, against the least possible for whoever holds what: by maximum flow."""

from __future__ import annotations

import random
from collections import Counter
from math import prod

import numpy as np

import redistrib as rd
from redistrib.backends.simulator.models import scatter_model
from redistrib.models.model_plan import ModelPlan
from tests.models.verify import counted
from tests.repetitions import repetitions


def least_worst_sender(plan: ModelPlan) -> int:
    """Bytes that some source device sends at least, where every element crosses once.

    A flow from all sets of elements with the same holders, through these: the least capacity of
    every holder with which all of it passes, by bisection.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_flow

    demand: Counter[frozenset[int]] = Counter()
    for t in plan.src.values():
        assert isinstance(t, rd.ArrayType)
        numbers = np.arange(prod(t.shape)).reshape(t.shape)
        held = scatter_model({"a": numbers}, {"a": rd.ArrayType(t.mesh, "i64", t.shape, t.dims)})
        holders: dict[int, set[int]] = {}
        for device, tiles in held.items():
            for number in tiles["a"].reshape(-1).tolist():
                holders.setdefault(number, set()).add(device)
        demand.update(frozenset(holding) for holding in holders.values() for _ in range(t.itemsize))
    sets, devices = list(demand), sorted({d for holders in demand for d in holders})
    total, size = sum(demand.values()), len(sets) + len(devices) + 2

    def passes(capacity: int) -> bool:
        edges = [(0, 1 + n, demand[holders]) for n, holders in enumerate(sets)]
        edges += [
            (1 + n, 1 + len(sets) + devices.index(device), demand[holders])
            for n, holders in enumerate(sets)
            for device in holders
        ]
        edges += [(1 + len(sets) + n, size - 1, capacity) for n in range(len(devices))]
        rows, columns, values = zip(*edges, strict=True)
        graph = csr_array((np.array(values, np.int32), (rows, columns)), shape=(size, size))
        return bool(maximum_flow(graph, 0, size - 1).flow_value == total)

    low, high = 0, total
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle + 1, high)
    return low


def model(rng: random.Random) -> ModelPlan:
    """Forty arrays of a few sizes in pipeline stages of replicas, to replicas on other devices."""
    stages = rng.choice((1, 2, 3))
    dp, tp = rng.choice(((1, 4), (2, 2), (4, 2), (3, 2), (2, 4)))
    before = [
        rd.Mesh({"dp": dp, "tp": tp}, devices=range(n * dp * tp, (n + 1) * dp * tp))
        for n in range(stages)
    ]
    first = stages * dp * tp
    rows, columns = rng.choice(((1, 4), (2, 2), (4, 1), (2, 4)))
    after = rd.Mesh({"r": rows, "y": columns}, devices=range(first, first + rows * columns))
    src, dst = {}, {}
    for n in range(40):
        h = rng.choice((24, 48, 96))
        cut = rng.choice(("{tp}", "{tp}", "{dp,tp}", ""))
        src[f"w{n}"] = (f"f32[{h}{cut}, 8]", before[n * stages // 40])
        dst[f"w{n}"] = (f"f32[{h}, 8{{y}}]", after)
    return rd.plan_model(src, dst, least_part=1)


def test_the_worst_sender_is_near_the_least_possible() -> None:
    rng = random.Random("flows")
    for _ in range(repetitions(6, 100)):
        plan = model(rng)
        _, sent = counted(plan)
        sources = {device for t in plan.src.values() for device in t.mesh.ids}
        assert max(sent[device] for device in sources) <= 1.05 * least_worst_sender(plan)


def test_sources_of_other_shapes_share_their_replicas() -> None:
    here, there = rd.Mesh(r=4), rd.Mesh({"y": 1}, devices=[9])
    shapes = {f"a{n}": f"f32[{100 + n}]" for n in range(4)}
    src = {name: (text, here) for name, text in shapes.items()}
    _, sent = counted(rd.plan_model(src, {name: (text, there) for name, text in shapes.items()}))
    assert sorted(sent[device] for device in here.ids) == [400, 404, 408, 412]


def test_pieces_are_cut_for_three_replicas() -> None:
    here, there = rd.Mesh(r=3), rd.Mesh({"y": 1}, devices=[9])
    plan = rd.plan_model({"a": ("f32[9, 5]", here)}, {"a": ("f32[9, 5]", there)}, least_part=1)
    assert [counted(plan)[1][device] for device in here.ids] == [60, 60, 60]
