"""The oracle on uneven types: prices one by one, and the plans that have them."""

from __future__ import annotations

import numpy as np
import pytest

import redistrib as rd


def test_vectors_and_matrices_have_the_prices_of_plans() -> None:
    mesh = rd.Mesh(x=4, y=2)
    texts = ("f32[10{x}:ceil, 8]", "f32[10, 8{x}]", "f32[10{y,x}:nested, 8]", "f32[10{y}, 8]")
    types = [rd.ArrayType.parse(text, mesh) for text in texts]
    oracle = rd.Oracle(mesh)
    matrix = oracle.matrix(types, types)
    for row, src in enumerate(types):
        for column, dst in enumerate(types):
            alone = oracle.cost(src, dst)
            plan = matrix.plan(row, column)
            rd.check(plan)
            assert matrix.seconds[row, column] == alone.seconds == plan.seconds
    assert np.array_equal(
        oracle.cost_vector(types, types[::-1]), matrix.seconds[:, ::-1].diagonal()
    )
    assert rd.cost_matrix(types[:1], types[1:]).shape == (1, 3)
    with pytest.raises(rd.LayoutError, match="holes are filled in even types"):
        rd.complete(types[0], "f32[10{?}, 8]")
