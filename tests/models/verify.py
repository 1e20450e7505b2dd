"""What must hold of a plan of a model, and of a move of it on data."""

from __future__ import annotations

import numpy as np

from redistrib.backends.simulator.models import run_model, scatter_model
from redistrib.models.check import check_model
from redistrib.models.model_plan import ModelPlan
from tests.models.random_moves import Case


def counted(plan: ModelPlan) -> tuple[dict[int, int], dict[int, int]]:
    """Bytes that each device receives and sends by the schedules, with the reductions."""
    received = dict.fromkeys(plan.devices, 0)
    sent = dict.fromkeys(plan.devices, 0)
    for device in plan.devices:
        for transfer in plan.schedule(device):
            if transfer.receiver == device:
                received[device] += transfer.wire_bytes
            if transfer.sender == device:
                sent[device] += transfer.wire_bytes
    for reduction in plan.reductions.values():
        for device in reduction.src.mesh.ids:
            received[device] += reduction.received_bytes
            sent[device] += reduction.sent_bytes
    return received, sent


def check_case(case: Case) -> None:
    plan = case.plan
    tiles = run_model(plan, scatter_model(case.arrays, plan.src))
    meant = scatter_model(case.meant, plan.dst)
    for device in plan.devices:
        assert tiles[device].keys() == meant.get(device, {}).keys()
        for name in tiles[device]:
            assert np.array_equal(tiles[device][name], meant[device][name]), (device, name)
    received, sent = counted(plan)
    assert plan.received_bytes == max(received.values())
    assert plan.sent_bytes == max(sent.values())
    assert plan.received_bytes >= plan.lower_bound_bytes
    check_model(plan)
