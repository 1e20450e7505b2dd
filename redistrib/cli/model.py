"""`redistrib model`: plan the move of a whole model between two programs, given as TOML.

[mesh.train]
axes = {dp = 4, tp = 4}
devices = "0:16"

[[array]]
name = "layers.{i}.wq"
repeat = "0:94"
type = "bf16[4096{tp}, 4096]"
mesh = "train"

[[array]]
name = "embed"
type = "P('tp', None)"  # any notation; what it does not state stands beside it
shape = [32000, 4096]
dtype = "bf16"
mesh = "train"
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from redistrib.cli.progress import progress
from redistrib.cli.values import parse_shape
from redistrib.display import to_page
from redistrib.errors import RedistribError
from redistrib.interop.notations import read_any
from redistrib.models.check import check
from redistrib.models.model_data import parse_devices
from redistrib.models.model_plan import ModelPlan, as_array_type, plan_model
from redistrib.models.moves import Move
from redistrib.models.names import Name
from redistrib.models.segments import AnyType, SegmentedType
from redistrib.models.weight_map import WeightMap
from redistrib.text import is_number
from redistrib.types.mesh import Mesh

FILE = click.Path(path_type=Path)
SCHEDULES = ("json", "nixl", "m2n")
MAX_REPEATS = 1 << 20


@click.command()
@click.argument("src", type=FILE, metavar="SRC.toml")
@click.argument("dst", type=FILE, metavar="DST.toml")
@click.option("--weights", type=FILE, help="The weight map (docs/models.md). Default: same names.")
@click.option("--budget", "budget", help="Bytes per device at most, such as 60GiB.")
@click.option("--relabel", is_flag=True, help="Let devices that have most of a tile get it.")
@click.option("--release", is_flag=True, help="Release each source after its last use.")
@click.option("--profile", help="A hardware profile, by name or file.")
@click.option("--format", "form", type=click.Choice(["text", "json", "html"]), default="text")
@click.option("--schedule", type=FILE, help="Write each device's transfers into this directory.")
@click.option("--schedule-format", "schedule_form", type=click.Choice(SCHEDULES), default="json")
def model(
    src: Path,
    dst: Path,
    weights: Path | None,
    budget: str | None,
    relabel: bool,
    release: bool,
    profile: str | None,
    form: str,
    schedule: Path | None,
    schedule_form: str,
) -> int:
    """Plan the move of a model from the arrays of SRC to those of DST.

    Each file has its meshes and the types of its arrays. Prints what the worst device receives,
    sends and holds beside the bounds; --schedule writes what each device does, for a transport.
    """
    with progress(f"planning the move from {src} to {dst}"):
        plan = plan_model(
            read_types(src),
            read_types(dst),
            weights=WeightMap.parse(read_text(weights)) if weights else None,
            memory_budget=budget,
            profile=profile,
            relabel=relabel,
            keep_sources=not release,
        )
        if schedule is not None:
            write_schedules(plan, schedule, schedule_form)
    if form == "html":
        click.echo(to_page(plan))
    else:
        click.echo(plan.to_json() if form == "json" else str(plan))
    return 0


def check_model_file(data: dict[str, Any]) -> int:
    """Check the plan of a whole model, from the data of its file, and print its figures."""
    plan = ModelPlan.from_json(json.dumps(data))
    figures = check(plan)
    click.echo(f"{len(plan.moves)} arrays on {len(plan.devices)} devices: correct")
    width = max(map(len, figures))
    for name, value in figures.items():
        click.echo(f"  {name:{width}}  {value}")
    return 0


def read_text(path: Path) -> str:
    """The text in a file. Raises RedistribError where it is none, and OSError."""
    try:
        return path.read_text(encoding="utf-8")
    except ValueError as error:
        raise RedistribError(f"{path}: {error}", path=path) from error


def read_types(path: Path) -> dict[str, AnyType]:
    """The types of arrays in a TOML file, by name. Raises RedistribError or OSError."""
    try:
        data = tomllib.loads(read_text(path))
    except (ValueError, RecursionError) as error:  # no TOML
        raise RedistribError(f"{path}: {error}", path=path) from error
    _check_keys(path, "a model", data, {"mesh", "array"})
    tables, arrays = data.get("mesh", {}), data.get("array", [])
    if not isinstance(tables, dict) or not isinstance(arrays, list):
        raise RedistribError(f"{path}: a model has tables [mesh.NAME] and [[array]]", path=path)
    meshes = {name: _mesh(path, name, entry) for name, entry in tables.items()}
    types: dict[str, AnyType] = {}
    for entry in arrays:
        _check_keys(path, "an array", entry, {"name", "type", "mesh", "repeat", "shape", "dtype"})
        for key in ("name", "type", "mesh"):
            if not isinstance(entry.get(key), str):
                raise RedistribError(f"{path}: an array has a {key}, a text; got {entry}")
        if entry["mesh"] not in meshes:
            raise RedistribError(
                f"{path}: array {entry['name']} is on mesh {entry['mesh']!r}; known: "
                f"{', '.join(meshes) or 'none'}"
            )
        t = _array_type(entry, meshes[entry["mesh"]])
        for name in _names(path, entry):
            if name in types:
                raise RedistribError(f"{path}: two arrays have the name {name}", name=name)
            types[name] = t
    return types


def _array_type(entry: Mapping[str, Any], mesh: Mesh) -> AnyType:
    """The type of an array; segments are of our own notation alone."""
    name, text = entry["name"], entry["type"]
    if "|" in text:
        return as_array_type(name, (text, mesh))
    try:
        return read_any(text, mesh, parse_shape(entry.get("shape")), entry.get("dtype"))
    except RedistribError as error:
        raise type(error)(f"array {name}: {error}", **vars(error)) from error


def _mesh(path: Path, name: str, entry: Any) -> Mesh:
    _check_keys(path, f"mesh {name}", entry, {"axes", "devices"})
    axes = entry.get("axes")
    if not isinstance(axes, dict) or "devices" not in entry:
        raise RedistribError(
            f'{path}: mesh {name} has axes = {{dp = 4, tp = 4}} and devices = "0:16" or a list'
        )
    return Mesh(axes, devices=parse_devices(entry["devices"]))


def _names(path: Path, entry: Mapping[str, Any]) -> list[str]:
    name = Name.parse(entry["name"])
    repeat = entry.get("repeat")
    if repeat is None and not name.placeholders:
        return [name.text({})]
    ends = repeat.split(":") if isinstance(repeat, str) else []
    whole = len(ends) == 2 and all(is_number(end) and len(end) < 10 for end in ends)
    count = int(ends[1]) - int(ends[0]) if whole else 0
    if not 0 < count <= MAX_REPEATS or len(name.placeholders) != 1:
        raise RedistribError(
            f'{path}: a name with one placeholder has repeat = "0:94"; got name {entry["name"]!r}, '
            f"repeat {repeat!r}"
        )
    (placeholder,) = name.placeholders
    return [name.text({placeholder: n}) for n in range(int(ends[0]), int(ends[1]))]


def _check_keys(path: Path, what: str, data: object, known: set[str]) -> None:
    if not isinstance(data, dict):
        raise RedistribError(f"{path}: {what} is a table; got {data!r}")
    if odd := data.keys() - known:
        raise RedistribError(
            f"{path}: {what} has the keys {', '.join(sorted(known))}; got {min(odd)!r}"
        )


def write_schedules(plan: ModelPlan, directory: Path, form: str) -> None:
    """Write what each device does, or what is legal for NCCL's M2N, into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    if form == "m2n":
        text = "\n".join(m2n_lines(plan)) + "\n"
        (directory / "m2n.txt").write_text(text, encoding="utf-8")
        return
    for device in plan.devices:
        schedule = plan.schedule(device)
        text = schedule.to_json() if form == "json" else schedule.to_nixl()
        (directory / f"device-{device}.json").write_text(text, encoding="utf-8")


def m2n_lines(plan: ModelPlan) -> list[str]:
    """Per target a line: the placements that NCCL's M2N takes, or why it takes none.

    M2N moves one array as it is between two meshes, of rank 3 at most, each side over at most one
    axis, in equal parts.
    """
    lines = []
    for move in plan.moves:
        names = [name for name, _ in move.sources]
        sides = [plan.dst[move.target], *(plan.src[name] for name in names)]
        why = next((reason for t in sides if (reason := _not_for_m2n(t))), "")
        if not why and (len(names) != 1 or len(move.steps) != 1):
            why = f"it is made of {len(names)} sources in {len(move.steps)} views"
        if not why and not _as_it_is(move, sides[0], sides[1]):
            why = f"it is other than {names[0]}: cut, cast or rearranged"
        placements = f"{plan.src[names[0]]} -> {sides[0]}" if names else ""
        lines.append(f"{move.target}: {'not legal: ' + why if why else placements}")
    return lines


def _as_it_is(move: Move, target: AnyType, source: AnyType) -> bool:
    """Whether the only step of a move copies the whole source, each element to its own place."""
    atom = move.steps[0].atom
    straight = all((d.dim, d.stride) == (d.source_dim, d.source_stride) for d in atom.digits)
    whole = target.shape == source.shape and atom.offset == atom.source_offset
    return straight and whole and target.dtype == source.dtype


def _not_for_m2n(t: AnyType) -> str:
    if isinstance(t, SegmentedType):
        return f"{t} is in segments"
    if len(t.shape) > 3:
        return f"{t} has rank {len(t.shape)}"
    if len(t.placements) > 1:
        return f"{t} is over more than one axis"
    if t.uneven:
        return f"{t} is uneven"
    if t.partial:
        return f"{t} is partial"
    return ""
