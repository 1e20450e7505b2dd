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
    """Bytes that some source device sends at least, if all that lack an element take it.

    On other devices every element crosses once, and goes on from there. A flow from all sets of
    elements with the same holders, through these: the least capacity of every holder with which all
    of it passes, by bisection.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_flow

    demand: Counter[frozenset[int]] = Counter()
    for name, t in plan.src.items():
        end = plan.dst[name]
        assert isinstance(t, rd.ArrayType)
        assert isinstance(end, rd.ArrayType)
        holders, takers = places(t), places(end)
        for number, holding in holders.items():
            lacking = len(takers[number] - holding)
            once = set(t.mesh.ids).isdisjoint(end.mesh.ids)
            demand[frozenset(holding)] += (1 if once else lacking) * t.itemsize
    demand = +demand
    if not demand:
        return 0
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


def places(t: rd.ArrayType) -> dict[int, set[int]]:
    """The devices that have each element, by its number."""
    numbers = np.arange(prod(t.shape)).reshape(t.shape)
    found: dict[int, set[int]] = {}
    held = scatter_model({"a": numbers}, {"a": rd.ArrayType(t.mesh, "i64", t.shape, t.dims)})
    for device, tiles in held.items():
        for number in tiles["a"].reshape(-1).tolist():
            found.setdefault(number, set()).add(device)
    return found


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


def on_the_same_devices(rng: random.Random) -> ModelPlan:
    """Forty arrays of up to three layouts a side, on one set of devices, in some order."""
    dp, tp = rng.choice(((2, 2), (4, 2), (3, 2), (2, 4), (2, 3)))
    before = rd.Mesh({"dp": dp, "tp": tp})
    y = rng.choice([n for n in (1, 2, 4, 8) if dp * tp % n == 0])
    ids = rng.sample(range(dp * tp), dp * tp) if rng.random() < 0.3 else range(dp * tp)
    after = rd.Mesh({"r": dp * tp // y, "y": y}, devices=ids)
    layouts = [
        (rng.choice((24, 48, 96)), rng.choice(("{tp}", "{tp}", "{dp,tp}", "{dp}", "")), columns)
        for columns in rng.choices(("8{y}", "8"), k=rng.choice((1, 3)))
    ]
    src, dst = {}, {}
    for n in range(40):
        h, cut, columns = rng.choice(layouts)
        src[f"w{n}"] = (f"f32[{h}{cut}, 8]", before)
        dst[f"w{n}"] = (f"f32[{h}, {columns}]", after)
    return rd.plan_model(src, dst, least_part=1)


def test_the_worst_sender_is_near_the_least_possible_on_the_same_devices() -> None:
    rng = random.Random("the same")
    for _ in range(repetitions(5, 100)):
        plan = on_the_same_devices(rng)
        _, sent = counted(plan)
        assert max(sent.values()) <= 1.05 * least_worst_sender(plan)


def test_takers_of_a_piece_are_served_by_all_that_hold_it() -> None:
    """Device (0, 1) alone lacks the first half, (1, 0) the second; two have each."""
    here, there = rd.Mesh(x=2, y=2), rd.Mesh(x=2, y=2)
    plan = rd.plan_model({"a": ("f32[8{y}]", here)}, {"a": ("f32[8{x}]", there)}, least_part=1)
    assert [counted(plan)[1][device] for device in here.ids] == [8, 8, 8, 8]


def test_sources_of_other_shapes_share_their_replicas() -> None:
    here, there = rd.Mesh(r=4), rd.Mesh({"y": 1}, devices=[9])
    shapes = {f"a{n}": f"f32[{100 + n}]" for n in range(4)}
    src = {name: (text, here) for name, text in shapes.items()}
    _, sent = counted(rd.plan_model(src, {name: (text, there) for name, text in shapes.items()}))
    assert sorted(sent[device] for device in here.ids) == [400, 404, 408, 412]


def test_who_has_given_more_is_asked_for_less() -> None:
    """Eight arrays on two devices, eight on these and two more, which send all of the latter."""
    two, four, there = (
        rd.Mesh(r=2),
        rd.Mesh({"a": 2, "b": 2}, devices=[2, 0, 1, 3]),
        rd.Mesh({"y": 1}, devices=[9]),
    )
    src = {f"a{n}": ("f32[100]", two if n < 8 else four) for n in range(16)}
    plan = rd.plan_model(src, dict.fromkeys(src, ("f32[100]", there)))
    assert [counted(plan)[1][device] for device in range(4)] == [1600] * 4
    rd.check(plan)


def on_some_of_the_devices(rng: random.Random) -> ModelPlan:
    """Forty arrays on meshes that overlap, of two to four devices, to four that may overlap too."""
    ids = rng.sample(range(6), 4)
    meshes = [
        rd.Mesh({"a": 2}, devices=[0, 1]),
        rd.Mesh({"a": 4}),
        rd.Mesh({"a": 2, "b": 2}, devices=ids),
    ]
    after = rd.Mesh({"r": 2, "y": 2}, devices=rng.choice((range(10, 14), rng.sample(range(6), 4))))
    src, dst = {}, {}
    for n in range(40):
        h, mesh = rng.choice((24, 48, 96)), rng.choice(meshes)
        src[f"w{n}"] = (f"f32[{h}{rng.choice(('', '', '{a}'))}, 8]", mesh)
        dst[f"w{n}"] = (f"f32[{h}, {rng.choice(('8{y}', '8'))}]", after)
    return rd.plan_model(src, dst, least_part=1)


def test_the_worst_sender_is_near_the_least_possible_where_meshes_overlap() -> None:
    """Dealt one array after the other, not solved: within 1.05 in the mean, 1.5 at worst."""
    rng = random.Random("overlapping meshes")
    found = []
    for _ in range(repetitions(3, 100)):
        plan = on_some_of_the_devices(rng)
        _, sent = counted(plan)
        sources = {device for t in plan.src.values() for device in t.mesh.ids}
        found.append(max(sent[device] for device in sources) / least_worst_sender(plan))
    assert max(found) <= 1.5
    assert sum(found) <= 1.05 * len(found)


def test_pieces_are_cut_for_three_replicas() -> None:
    here, there = rd.Mesh(r=3), rd.Mesh({"y": 1}, devices=[9])
    plan = rd.plan_model({"a": ("f32[9, 5]", here)}, {"a": ("f32[9, 5]", there)}, least_part=1)
    assert [counted(plan)[1][device] for device in here.ids] == [60, 60, 60]
