"""A problem on the axes of the machine: an axis is cut where its links change.

Example: `x=32` on 4 nodes of 8 devices. `finer_mesh` is `x.1=4,x.4=8`, the nodes and what is inside
them, and `bf16[4096{x}]` is `bf16[4096{x.1,x.4}]` there. The planner answers on that mesh, and so
it may gather between the nodes first; `steps` brings its answer back, with `x:(1)4` for `x.1`.

An axis is cut where that suits the digits of the types: on x=12 over nodes of 6 devices in pairs,
links change at 2 and 6; types that cut x at 4, as 4 x 3, leave the cut at 2.

Law: an axis costs what its parts cost as axes of their own, because the same problem is planned,
unless the digits that both types are cut into leave no cut there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from redistrib.synth.plan.collectives import Collective
from redistrib.synth.plan.profile import Profile
from redistrib.synth.planner.relabel import Digits, relabelled
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, IndexDigit, cut, inside, split_at
from redistrib.types.mesh import Mesh, whole_axes
from redistrib.types.refinement import common_cuts, comparable


@dataclass(frozen=True, slots=True)
class CutAxes:
    """A mesh with some of its axes cut: each axis of `finer_mesh` with the part that it is.

    `links` is the profile there.
    """

    finer_mesh: Mesh
    parts: tuple[tuple[str, DeviceDigit], ...]
    links: Profile

    def type(self, t: ArrayType) -> ArrayType:
        """The type on the finer mesh."""
        cuts = [(part.axis, part.pre) for _, part in self.parts]
        partial = split_at([(d, IndexDigit(0, d.pre, d.size)) for d in t.partial], cuts)
        return t.replace(
            mesh=self.finer_mesh,
            placements=[
                (self._finer(device), index) for device, index in split_at(t.placements, cuts)
            ],
            partial=[self._finer(device) for device, _ in partial],
        )

    def _finer(self, device: DeviceDigit) -> DeviceDigit:
        name, part = next((name, part) for name, part in self.parts if inside(device, part))
        return DeviceDigit(name, device.pre // part.pre, device.size)

    def steps(self, src: ArrayType, steps: Iterable[Collective]) -> list[Collective]:
        """Steps on the finer mesh as steps on the mesh, from the type `src` there."""
        return relabelled(src, steps, Digits({name: (part,) for name, part in self.parts}))


@lru_cache(maxsize=256)
def _cut(links: Profile, mesh: Mesh, cuts: tuple[tuple[int, ...], ...]) -> CutAxes:
    """The axes of a mesh, each with its cuts. `links` is a profile with its links on the mesh."""
    taken = {name for name, _ in mesh.axes}
    parts: list[tuple[str, DeviceDigit]] = []
    for axis, of_axis in zip(whole_axes(mesh), cuts, strict=True):
        digits = cut(axis, of_axis)
        for part in digits:
            name = axis.axis if len(digits) == 1 else f"{axis.axis}.{part.pre}"
            while len(digits) > 1 and name in taken:
                name += "_"
            taken.add(name)
            parts.append((name, part))
    finer = Mesh([(name, part.size) for name, part in parts], devices=mesh.devices)
    of_parts = [entry for name, part in parts for entry in links.within(name, part)]
    on_finer = replace(links, axes=tuple(e for e in of_parts if e[1] != links.link))
    return CutAxes(finer, tuple(parts), on_finer)


def on_cut_axes(
    links: Profile, types: Sequence[ArrayType]
) -> tuple[CutAxes, list[ArrayType]] | None:
    """Types of one mesh with its axes cut where their links change; None where nothing is cut.

    `links` is a profile with its links on the mesh. Not at a cut that does not suit all digits of
    the types: on x=6 those do not match if the links cut it as 3 x 2 and the types as 2 x 3.
    """
    if not links.cuts_axes or any(t.uneven for t in types):
        return None
    mesh, of_types = types[0].mesh, common_cuts(types)
    cuts = []
    for axis in whole_axes(mesh):
        ends = {end for part in links.parts_of(axis.axis) for end in (part.pre, part.end)}
        inner = sorted(end for end in ends if 1 < end < axis.size)
        suit = (end for end in inner if comparable(end, of_types[axis.axis]))
        cuts.append(tuple(suit))
    if not any(cuts):
        return None
    axes = _cut(links, mesh, tuple(cuts))
    return axes, [axes.type(t) for t in types]
