"""Hardware profiles: what the links of a machine take, in seconds and bytes a second.

A profile is a TOML file or an object; docs/oracle.md has the format and the profiles that come
with the library. Two devices to a node, 10 us and 450 GB/s inside, 20 us and 50 GB/s across; the
microseconds of a step in which a device receives 9 MB, between nodes and inside one:

>>> mesh, across, inside = Mesh(node=2, gpu=2), Link(2e-5, 5e10), Link(1e-5, 4.5e11)
>>> links = Profile("two per node", across, levels=(Level(2, inside),)).on(mesh)
>>> [round(1e6 * links.seconds([axis], 9_000_000)) for axis in whole_axes(mesh)]
[200, 30]
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import lru_cache
from importlib import resources
from math import gcd, lcm, prod
from pathlib import Path
from typing import Any, Literal, get_args

from redistrib.errors import RedistribError
from redistrib.synth.plan.by_level import gaps, link_between, links_by_level
from redistrib.synth.plan.collectives import BY_NAME
from redistrib.synth.plan.link_data import (
    LINK_KEYS,
    check_keys,
    read_level,
    read_link,
    read_number,
    write_level,
    write_link,
)
from redistrib.synth.plan.links import Crossed, Level, Link, link_across, speed_over
from redistrib.text import brief, is_number
from redistrib.types.digits import DeviceDigit, apart, parse_device_digit
from redistrib.types.mesh import Mesh, whole_axes

Execution = Literal["call", "rounds"]


@dataclass(frozen=True, slots=True)
class Profile:
    """A hardware profile: a link for every axis, and how the backend runs each collective.

    `link` is the one across the whole machine. `levels` are faster links inside groups of devices,
    smallest group first; a part of an axis has the link of the first level that holds each of its
    lines (`on` finds it). `axes` gives the link of axes, or of parts of axes, by name, whatever
    their level. A collective over several of them has the largest latency and the least bandwidth
    of all that it crosses, but for the rings of a torus (`links`). An exchange is one call
    ("call", as in MPI) or a round of permutes per sender ("rounds", as in jax.lax), each round with
    its own latency. `efficiency` is the fraction of the bandwidth that a collective, by name,
    reaches. `source` says where the numbers come from.

    Raises RedistribError for an efficiency that is not above 0 and at most 1 or of no communicating
    collective, levels out of order, a torus of more or fewer devices than its level, an axis named
    twice, or another way to run an exchange.
    """

    name: str
    link: Link
    axes: tuple[tuple[str, Link], ...] = ()
    exchange: Execution = "rounds"
    levels: tuple[Level, ...] = ()
    efficiency: tuple[tuple[str, float], ...] = ()
    source: str = ""
    across: Link | None = field(default=None, repr=False)
    """Of a profile on two meshes the link from one to the other; it has no spelling in a file."""
    _of_axis: dict[str, Link | list[tuple[DeviceDigit, Link]]] = field(
        init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        sizes = [level.devices for level in self.levels]
        if sizes != sorted(set(sizes)):
            raise RedistribError(f"levels come smallest group first; got {sizes}")
        for below, level in zip((1, *sizes), self.levels, strict=False):
            if level.torus and prod(level.torus) * below != level.devices:
                raise RedistribError(
                    f"a torus has the devices of its level, over those of the level below: "
                    f"{level.devices} / {below}; got {list(level.torus)}"
                )
        if self.exchange not in get_args(Execution):
            raise RedistribError(
                f"exchange is {' or '.join(get_args(Execution))}; got {self.exchange!r}"
            )
        for key, pairs in (("axes", self.axes), ("efficiency", self.efficiency)):
            if len(dict(pairs)) != len(pairs):
                raise RedistribError(f"{key} of a profile are named once; got {pairs}")
        check_keys("efficiency", dict(self.efficiency), COMMUNICATING)
        for collective, fraction in self.efficiency:
            if not 0 < fraction <= 1:
                raise RedistribError(
                    f"the efficiency of {collective} is above 0 and at most 1; got {fraction}"
                )
        object.__setattr__(self, "_of_axis", _by_axis(self.axes))

    def seconds(
        self,
        axes: Iterable[DeviceDigit],
        received_bytes: int,
        latencies: int = 1,
        collective: str = "",
        onto: bool = False,
    ) -> float:
        """Time of one communicating step; `onto` another mesh or not."""
        if collective == "exchange" and self.exchange == "call":
            latencies = 1
        latency, bandwidth = self.speed(axes, collective, onto)
        return latency * latencies + received_bytes / bandwidth

    def speed(
        self, axes: Iterable[DeviceDigit], collective: str = "", onto: bool = False
    ) -> tuple[float, float]:
        """Latency and bandwidth of a collective over these axes, and onto another mesh if so."""
        latency, bandwidth = self.link.latency, self.link.bandwidth
        if self.by_axis:
            used = [(self.across or self.link, 1)] if onto else []
            used += [crossed for device in axes for crossed in self._crossed(device)]
            latency, bandwidth = speed_over(used or [(self.link, 1)], collective)
        if self.efficiency:
            bandwidth *= dict(self.efficiency).get(collective, 1.0)
        return latency, bandwidth

    def on(self, mesh: Mesh, other: Mesh | None = None) -> Profile:
        """This profile with its levels resolved into the links of the axes of a mesh.

        What goes onto the `other` mesh crosses the link of the first level that holds all devices
        of both, else that of the profile.

        Where all axes have the same link, that is the one link of the result. Of an axis that runs
        over several levels, each part has its link: of 4 devices, two to a node, the minor digit is
        inside. Parts between nodes have the profile's own link and are not listed.

        >>> node = Profile("two per node", Link(1e-5, 1e10), levels=(Level(2, Link(1e-6, 1e11)),))
        >>> [axis for axis, link in node.on(Mesh(x=4, y=2)).axes]
        ['y']
        >>> [(axis, link.latency) for axis, link in node.on(Mesh(x=4)).axes]
        [('x:(2)2', 1e-06)]
        """
        if not (self.levels or self.axes):
            return self
        return _resolved(self, mesh, None if other == mesh else other)

    @property
    def by_axis(self) -> bool:
        """Whether it makes a difference which axes a collective crosses."""
        return bool(self.axes or self.across or self.link.place)

    @property
    def uniform(self) -> bool:
        """Whether every axis has the same link."""
        return not self.link.place and all(link == self.link for _, link in self.axes)

    def _crossed(self, device: DeviceDigit) -> list[Crossed]:
        """The links that a part of an axis crosses, the levels aside, each with its devices."""
        known = self._of_axis.get(device.axis, self.link)
        if isinstance(known, Link):
            return [(known.below(device.pre), device.size)]
        overlaps = [*self._overlaps(device, known)]
        crossed = [(link, max(1, part.size)) for part, link in overlaps]
        if prod([part.size for part, _ in overlaps]) == device.size:
            return crossed
        if any(link.place for link, _ in crossed):
            beside = [*gaps(device, known, self.link)]
            every = [*overlaps, *self._overlaps(device, beside)]
            if prod([part.size for part, _ in every]) != device.size:
                # It is cut otherwise than the links are.
                met = [link for part, link in (*known, *beside) if not apart(part, device)]
                return [(link_across(met), device.size)]
        return [*crossed, (self.link, device.size)]

    @staticmethod
    def _overlaps(
        device: DeviceDigit, known: Iterable[tuple[DeviceDigit, Link]]
    ) -> Iterator[tuple[DeviceDigit, Link]]:
        """What a part of an axis has in common with parts that have links, with these.

        Of size 0 where they only cross.
        """
        for part, link in known:
            if not apart(part, device):
                start, end = lcm(part.pre, device.pre), gcd(part.end, device.end)
                size = end // start
                fits = size * max(part.pre, device.pre) == min(part.end, device.end)
                of_part = link.below(start // part.pre) if fits else link_across([link])
                yield DeviceDigit(device.axis, start, size), of_part

    def links_of(self, device: DeviceDigit) -> list[Link]:
        """The links that a part of an axis crosses, the levels aside."""
        return [link for link, _ in self._crossed(device)]

    @property
    def cuts_axes(self) -> bool:
        """Whether some axis has several links, one for each part."""
        return any(":" in name for name, _ in self.axes)

    def parts_of(self, axis: str) -> list[DeviceDigit]:
        """The parts of an axis that have links of their own."""
        known = self._of_axis.get(axis, self.link)
        return [] if isinstance(known, Link) else [part for part, _ in known]

    def link_of(self, device: DeviceDigit) -> Link:
        """The slowest link that a part of an axis crosses, the levels aside."""
        links = self.links_of(device)
        if len(links) == 1:
            return links[0]
        return Link(max(link.latency for link in links), min(link.bandwidth for link in links))

    def named(self, name: str, device: DeviceDigit) -> list[tuple[str, Link]]:
        """The links of a part of an axis as of an axis `name`: by part, if it has places."""
        alike = len(self.where(device)) < 2
        return [(name, self.link_of(device))] if alike else self.within(name, device)

    def within(self, name: str, device: DeviceDigit) -> list[tuple[str, Link]]:
        """The links inside a part of an axis as those of an axis `name` and of its parts."""
        known = self._of_axis.get(device.axis, self.link)
        if isinstance(known, Link):
            return [(name, known.below(device.pre))]
        parts = [(part, link) for part, link in self._overlaps(device, known) if part.size > 1]
        inner = [DeviceDigit(name, part.pre // device.pre, part.size) for part, _ in parts]
        names = [name if part.size == device.size else str(part) for part in inner]
        return [(of_part, link) for of_part, (_, link) in zip(names, parts, strict=True)]

    def used_links(self, mesh: Mesh) -> list[Link]:
        """The links that the axes of a mesh have, those of size 1 aside."""
        return [link for axis in whole_axes(mesh) for link in self.links_of(axis)]

    def fastest(self, mesh: Mesh) -> Link:
        """No collective on a mesh takes less than over this link."""
        if not self.axes:
            return Link(self.link.latency, self.link.bandwidth)
        links = self.used_links(mesh) or [self.link]
        return Link(min(link.latency for link in links), max(map(best_of(links), links)))

    def fastest_over(self, device: DeviceDigit, mesh: Mesh) -> Link:
        """No collective on a mesh that crosses all parts of an axis takes less than this."""
        link = self.link_of(device)
        if not self.where(device):
            return link
        best = best_of([*self.used_links(mesh), self.link])
        return Link(link.latency, max(map(best, self.links_of(device))))

    def where(self, device: DeviceDigit) -> tuple[tuple[int, ...], ...]:
        """The places that a part of an axis has; of digits with other places prices may differ."""
        places = tuple(link.where for link in self.links_of(device))
        return places if any(places) else ()

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """The profile in a TOML file (the format: docs/oracle.md).

        Raises RedistribError if the file is missing or not such a profile.
        """
        try:
            return cls.from_toml(Path(path).read_text(encoding="utf-8"), Path(path).stem)
        except (OSError, ValueError, RedistribError) as error:
            near = get_close_matches(str(path), profile_names(), n=1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise RedistribError(
                f"a profile is {', '.join(profile_names())} or a TOML file with latency (s) and "
                f"bandwidth (bytes/s); got {str(path)!r}{hint}: {error}",
                profile=path,
            ) from error

    @classmethod
    def from_toml(cls, text: str, name: str = "profile") -> Profile:
        """The profile in a TOML text; `name` where it gives none. Raises RedistribError."""
        try:
            data = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # no TOML, or a number too long to read
            raise RedistribError(str(error)) from error
        return cls.from_data(data, name)

    @classmethod
    def from_data(cls, data: object, name: str = "profile") -> Profile:
        """The profile in the tables of a TOML file or the object of a JSON text.

        `name` where it gives none. Raises RedistribError, also for a key that is not known.
        """
        if not isinstance(data, dict):
            raise RedistribError(f"a profile is a table of keys and values; got {data!r}")
        check_keys("a profile", data, PROFILE_KEYS, LINK_KEYS)
        for key, kind in (
            ("name", str),
            ("source", str),
            ("axes", dict),
            ("levels", list),
            ("efficiency", dict),
        ):
            if not isinstance(data.get(key, kind()), kind):
                raise RedistribError(f"{key} of a profile is a {kind.__name__}; got {data[key]!r}")
        return cls(
            data.get("name", name),
            read_link("a profile", {key: data.get(key) for key in LINK_KEYS}),
            tuple(
                (axis, read_link(f"axes.{axis}", link))
                for axis, link in data.get("axes", {}).items()
            ),
            data.get("exchange", "rounds"),
            tuple(read_level(level) for level in data.get("levels", ())),
            tuple((c, read_number(c, part)) for c, part in data.get("efficiency", {}).items()),
            data.get("source", ""),
        )

    def to_data(self) -> dict[str, Any]:
        """The profile as the object that `from_data` reads; what it does not use is left out.

        >>> Profile("node", Link(1e-6, 1e11)).to_data()
        {'name': 'node', 'latency': 1e-06, 'bandwidth': 100000000000.0, 'exchange': 'rounds'}
        """
        optional = {
            "axes": {axis: write_link(link) for axis, link in self.axes},
            "levels": [write_level(level) for level in self.levels],
            "efficiency": dict(self.efficiency),
            "source": self.source,
        }
        return {
            "name": self.name,
            **write_link(self.link),
            "exchange": self.exchange,
            **{key: value for key, value in optional.items() if value},
        }


PROFILE_KEYS = (*LINK_KEYS, "name", "source", "exchange", "levels", "axes", "efficiency")
COMMUNICATING = tuple(name for name, kind in BY_NAME.items() if kind.communicates)


def _by_axis(
    axes: tuple[tuple[str, Link], ...],
) -> dict[str, Link | list[tuple[DeviceDigit, Link]]]:
    """Per axis its link, or the links of its parts."""
    links: dict[str, Link | list[tuple[DeviceDigit, Link]]] = {}
    for name, link in axes:
        if ":" not in name:
            links[name] = link
            continue
        part = parse_device_digit(name)
        parts = links.setdefault(part.axis, [])
        if isinstance(parts, Link):
            raise RedistribError(f"an axis has one link, or a link for each part; got {name}")
        parts.append((part, link))
    return links


def best_of(links: Iterable[Link]) -> Callable[[Link], float]:
    """Per link the most bandwidth that a collective over some of `links` has which crosses it.

    All rings of one level at once.
    """
    rings: dict[int, set[int]] = {}
    for place in (link.place for link in links):
        if place is not None:
            rings.setdefault(place.level, set()).add(place.ring)

    def best(link: Link) -> float:
        return link.bandwidth * (len(rings[link.place.level]) if link.place else 1)

    return best


@lru_cache(maxsize=256)
def _resolved(profile: Profile, mesh: Mesh, other: Mesh | None) -> Profile:
    """The links of the axes of a mesh, each by the name of an axis or of a part of one."""
    levels, outside = profile.levels, profile.link
    if other is not None and profile.across is None:
        profile = replace(profile, across=link_between(levels, outside, mesh, other))
    links = list(profile.axes)
    named = {axis_of(name) for name, _ in links}
    for axis in whole_axes(mesh):
        if axis.axis not in named:
            links += links_by_level(levels, outside, mesh, axis)
    order = {name: number for number, (name, _) in enumerate(mesh.axes)}
    links = [entry for entry in links if axis_of(entry[0]) in order]
    links.sort(key=lambda entry: order[axis_of(entry[0])])
    resolved = replace(profile, axes=tuple(links), levels=())
    used = {*resolved.used_links(mesh)}
    # Where all axes are inside one level, what is a digit of none of them is so too.
    inside = {link.anywhere for link in used}
    link = inside.pop() if len(inside) == 1 else outside
    if used == {link}:
        return replace(profile, link=link, axes=(), levels=())
    return replace(resolved, link=link, axes=tuple(entry for entry in links if entry[1] != link))


def axis_of(name: str) -> str:
    """The axis that a name of a profile is of: `x` and `x:(4)8` are of x."""
    return name.partition(":")[0]


DEFAULT_PROFILE = Profile("default", Link(latency=1e-6, bandwidth=1e11))


@lru_cache(maxsize=1)
def profile_names() -> tuple[str, ...]:
    """The names of the profiles that come with the library."""
    files = resources.files("redistrib").joinpath("profiles").iterdir()
    shipped = [file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml")]
    return (DEFAULT_PROFILE.name, *sorted(shipped))


@lru_cache(maxsize=64)
def _shipped(name: str) -> Profile:
    file = resources.files("redistrib").joinpath("profiles", f"{name}.toml")
    return Profile.from_toml(file.read_text(encoding="utf-8"), name)


@lru_cache(maxsize=64)
def _slice(name: str, shape: str) -> Profile:
    whole, sides = find_profile(name), shape.split("x")
    level = next((level for level in whole.levels if level.torus), None)
    if level is None or level != whole.levels[0] or not all(map(is_number, sides)):
        raise RedistribError(
            f"a slice of a torus is NAME:SIDExSIDE, as in tpu-v5e:4x8; got {name}:{shape}"
        )
    torus = tuple(map(int, sides))
    smaller = replace(level, devices=prod(torus), torus=torus)
    return replace(whole, name=f"{name}:{shape}", levels=(smaller, *whole.levels[1:]))


def find_profile(profile: Profile | str | Path | None) -> Profile:
    """A profile given as such, by name, or by the path of its file; None is the default one.

    `tpu-v5e:4x8` is that profile on a slice of its torus of so many devices along each ring.

    >>> find_profile("tpu-v5e:4x8").levels[0].torus
    (4, 8)
    """
    match profile:
        case None:
            return DEFAULT_PROFILE
        case Profile():
            return profile
        case str() if profile == DEFAULT_PROFILE.name:
            return DEFAULT_PROFILE
        case str() if profile in profile_names():
            return _shipped(profile)
        case str() if profile.partition(":")[0] in profile_names():
            return _slice(*profile.split(":", 1))
        case str() | Path():
            return Profile.load(profile)
    raise RedistribError(
        f"a profile is a Profile, a name ({', '.join(profile_names())}) or the path of a file; "
        f"got {brief(profile)}",
        profile=profile,
    )
