"""What a device holds on both sides of a pair of types, from which bounds on traffic follow.

A device need not receive what its source tile already has. Components of a refinement are
independent, so the overlap of the two tiles is a product over components, and the least of it over
devices too. On x=2,y=2, `f32[4{x,y}] -> f32[4{y,x}]` exchanges the digits of x and y: the devices
(0, 0) and (1, 1) keep their element, the two others need another one, so no element is sure:

>>> from redistrib.types.mesh import Mesh
>>> from redistrib.types.refinement import refine
>>> mesh = Mesh(x=2, y=2)
>>> src, dst = (ArrayType.parse(text, mesh) for text in ("f32[4{x,y}]", "f32[4{y,x}]"))
>>> (component,) = refine(src, dst).components()
>>> min_overlap(component), held_fraction(component)
(0, Fraction(1, 2))
"""

from __future__ import annotations

from fractions import Fraction
from math import prod

import numpy as np
from numpy.typing import NDArray

from redistrib.types.array_type import ArrayType
from redistrib.types.digits import Positions, digit_values, inside
from redistrib.types.mesh import check_enumerable
from redistrib.types.refinement import Component


def least_overlap(dst: ArrayType, components: list[Component]) -> int:
    """Elements that every device both holds and needs: the least over devices."""
    in_components = prod(run.size for c in components for run in c.dims)
    outside = dst.size // in_components if dst.size else 0
    return outside * prod(min_overlap(component) for component in components)


def min_overlap(component: Component) -> int:
    """Elements of a component that every device is sure to hold and need: the worst device's.

    Counted within the component: over the part of the index space that its dimension runs span.
    """
    if component.aligned:
        owner = {index: device for device, index in component.src}
        return int(all(owner.get(index, device) == device for device, index in component.dst))
    return int(np.prod([held.sum(axis=1) for _, held in needed(component)], axis=0).min())


def held_fraction(component: Component) -> Fraction:
    """The fraction of a component's elements that some device holds and needs."""
    if component.aligned:  # a digit that owns on both sides asks for equal values of two runs
        return Fraction(1, prod(run.size for run in component.dims[1:]))
    found = np.zeros([run.size for run in component.dims], dtype=bool)
    runs = needed(component)
    for a in range(len(runs[0][0])):
        found[np.ix_(*(values[a][held[a]] for values, held in runs))] = True
    return Fraction(int(found.sum()), found.size)


def needed(component: Component) -> list[tuple[Positions, NDArray[np.bool_]]]:
    """Per dimension run, the values that each device needs, and which of them it holds already.

    Both are [row-major coordinate over the axes of the component, position in the target tile].
    Raises LayoutError where those are too many coordinates.
    """
    count = prod(axis.size for axis in component.axes)
    check_enumerable(count)
    at = np.arange(count)
    result = []
    for run in component.dims:
        values = np.zeros((len(at), 1), dtype=np.intp)
        end = run.pre
        for device, index in sorted(component.dst, key=lambda placement: placement[1]):
            if inside(index, run):
                stride = run.end // index.end
                gap = np.arange(index.pre // end) * (stride * index.size)
                start = digit_values([device], at, component.axes) * stride
                values = (values[:, :, None] + (gap + start[:, None])[:, None, :]).reshape(
                    len(at), -1
                )
                end = index.end
        values = (values[:, :, None] + np.arange(run.end // end)).reshape(len(at), -1)
        held = np.ones(values.shape, dtype=bool)
        for device, index in component.src:
            if inside(index, run):
                owned = values // (run.end // index.end) % index.size
                held &= owned == digit_values([device], at, component.axes)[:, None]
        result.append((values, held))
    return result
