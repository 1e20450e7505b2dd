"""Common refinement, its components, and the lower bound that they give."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import redistrib as rd
from redistrib.synth.plan.routing import lower_bound
from redistrib.types.digits import is_chain
from redistrib.types.refinement import refine
from tests.generators import random_pair


def pair(mesh: rd.Mesh, src: str, dst: str) -> tuple[rd.ArrayType, rd.ArrayType]:
    return rd.ArrayType.parse(src, mesh), rd.ArrayType.parse(dst, mesh)


@pytest.mark.parametrize(
    ("mesh", "src", "dst", "aligned"),
    [
        (rd.Mesh(x=4, y=2), "f32[8{x}]", "f32[8{y}]", True),
        (rd.Mesh(x=6), "f32[12{x}]", "f32[12{_2,x}]", False),  # a chain in the dimension, not in x
        (rd.Mesh(x=2, y=3), "f32[6{x,y}]", "f32[6{y,x}]", False),
        (rd.Mesh(x=4, y=6), "f32[48{x}, 48{y}]", "f32[48{y}, 48{x}]", False),
        (rd.Mesh(x=6), "f32[6{x:(1)2}]", "f32[6{x:(1)3}]", False),
        (rd.Mesh(x=12), "f32[24{x}]", "f32[24{_2,x}]", False),
        (rd.Mesh(x=4), "f32[16{_2,x}]", "f32[16{x,_2}]", True),
    ],
)
def test_alignment(mesh: rd.Mesh, src: str, dst: str, aligned: bool) -> None:
    assert refine(*pair(mesh, src, dst)).aligned == aligned


@pytest.mark.parametrize(
    ("mesh", "src", "dst", "axes"),
    [
        # A cut inside a dimension cuts the part of the axis that owns it, wherever that begins.
        (rd.Mesh(x=8, y=2), "f32[8{x:(2)4}]", "f32[8{y}]", "x:(1)2 x:(2)2 x:(4)2 y:(1)2"),
        # A cut of an axis cuts what it owns, and this cuts another axis.
        (rd.Mesh(x=4, y=4), "f32[4{x}, 4]", "f32[4{y}, 4{x:(1)2}]", "x:(1)2 x:(2)2 y:(1)2 y:(2)2"),
    ],
)
def test_cuts_propagate(mesh: rd.Mesh, src: str, dst: str, axes: str) -> None:
    found = refine(*pair(mesh, src, dst))
    assert found.aligned
    assert " ".join(map(str, found.axes)) == axes


def test_components_of_a_misaligned_pair_are_independent() -> None:
    mesh = rd.Mesh(x=4, y=6)
    found = refine(*pair(mesh, "f32[48{x}, 48{y}]", "f32[48{y}, 48{x}]")).components()
    assert [component.aligned for component in found] == [True, False]
    assert [str(axis) for axis in found[1].axes] == ["x:(2)2", "y:(2)3"]


@given(st.randoms(use_true_random=False))
def test_digits_are_chains_and_owned_by_digits_of_their_size(rng: random.Random) -> None:
    src, dst = random_pair(rng.choice)
    refinement = refine(src, dst)
    for n, runs in zip(src.shape, refinement.dims, strict=True):
        assert is_chain([1, *(run.end for run in runs)])
        assert not n or not runs or runs[-1].end == n
    for side in (refinement.src, refinement.dst):
        assert all(device.size == index.size for device, index in side.items())
    if refinement.aligned:
        digits = {run for runs in refinement.dims for run in runs}
        assert {*refinement.src.values(), *refinement.dst.values()} <= digits
        assert {*refinement.src, *refinement.dst} <= set(refinement.axes)


@given(st.randoms(use_true_random=False))
def test_the_lower_bound_is_the_set_difference_on_the_worst_device(rng: random.Random) -> None:
    src, dst = random_pair(rng.choice, partial=False)
    worst = 0
    for position in range(src.mesh.num_devices):
        common = 1
        for ours, theirs in zip(src.tile(position), dst.tile(position), strict=True):
            common *= len(np.intersect1d(ours, theirs, assume_unique=True))
        worst = max(worst, dst.tile_size - common)
    assert lower_bound(src, dst) == worst


@pytest.mark.parametrize(
    ("dst", "message"),
    [
        ("f32[8, 4]", "one shape; got [8] and [8, 4]"),
        ("f64[8]", "one dtype; got f32 and f64"),
    ],
)
def test_pairs_of_different_arrays_are_refused(dst: str, message: str) -> None:
    mesh = rd.Mesh(x=2)
    with pytest.raises(rd.LayoutError) as error:
        rd.plan(*pair(mesh, "f32[8]", dst))
    assert message in str(error.value)


def test_no_refinement_joins_two_meshes() -> None:
    src = rd.ArrayType.parse("f32[8{x}]", rd.Mesh(x=2))
    dst = rd.ArrayType.parse("f32[8{y}]", rd.Mesh(y=2))
    with pytest.raises(rd.LayoutError, match="one mesh; got x=2 and y=2"):
        refine(src, dst)
