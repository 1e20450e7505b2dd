"""`redistrib calibrate`: a profile of this machine, measured."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import click

import redistrib as rd
from redistrib.backends.calibration import MOVES, ROUNDS, to_toml
from redistrib.backends.registry import find_backend
from redistrib.cli.options import FILE
from redistrib.cli.progress import progress

Measured = tuple[rd.Profile | None, str]
"""A profile, None where another rank prints it, and what it is of."""


@click.command()
@click.option("--backend", type=click.Choice(["jax", "mpi", "torch"]), required=True)
@click.option(
    "--mesh",
    metavar="MESH",
    help="Axes to tell apart, nodes first, e.g. node=2,gpu=8; default: one axis over all.",
)
@click.option(
    "--moves", type=click.IntRange(16), default=MOVES, show_default=True, help="How many."
)
@click.option(
    "--rounds", type=click.IntRange(2), default=ROUNDS, show_default=True, help="Of each move."
)
@click.option("--name", default="calibrated", show_default=True, help="The name of the profile.")
@click.option("-o", "--output", type=FILE, help="Write to this file instead of stdout.")
def calibrate(
    backend: str, mesh: str | None, moves: int, rounds: int, name: str, output: Path | None
) -> int:
    """Measure a hardware profile of this machine: a TOML file for --profile.

    With --backend mpi, start one process per device: mpiexec -n 8 redistrib calibrate ... With jax
    its devices are measured, or as many virtual ones of the CPU as the mesh has; with torch
    processes on this machine, over gloo.
    """
    find_backend(backend).load()
    parsed = None if mesh is None else rd.Mesh.parse(mesh)
    profile, facts = WAYS[backend](parsed, name, moves, rounds)
    if profile is None:
        return 0
    text = to_toml(
        profile,
        f"redistrib calibrate --backend {backend}, {date.today():%Y-%m-%d}\n"
        f"{facts}, {os.cpu_count()} cores",
    )
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")
    return 0


def _of_mpi(mesh: rd.Mesh | None, name: str, count: int, rounds: int) -> Measured:
    from mpi4py import MPI

    from redistrib.backends import mpi

    comm = MPI.COMM_WORLD
    mesh = mesh or rd.Mesh(x=comm.size)
    with progress(f"calibrating {mesh} over {comm.size} ranks"):
        profile = mpi.calibrate(mesh, comm, name, count=count, rounds=rounds)
    library = MPI.Get_library_version().split("\n")[0].strip("\0 ")
    return None if comm.rank else profile, f"{library}, {comm.size} ranks as {mesh}"


def _of_jax(mesh: rd.Mesh | None, name: str, count: int, rounds: int) -> Measured:
    from redistrib.backends import jax as rjax

    devices = rjax.virtual_devices(1 if mesh is None else mesh.num_devices)
    if mesh is None:
        devices = devices[0].client.devices()
        mesh = rd.Mesh(x=len(devices))
    with progress(f"calibrating {mesh} over {len(devices)} devices"):
        profile = rjax.calibrate(mesh, devices, name, count=count, rounds=rounds)
    version = find_backend("jax").version()
    return profile, f"jax {version}, {len(devices)} of {devices[0].device_kind} as {mesh}"


def _of_torch(mesh: rd.Mesh | None, name: str, count: int, rounds: int) -> Measured:
    from redistrib.backends import torch as rtorch

    mesh = mesh or rd.Mesh(x=os.cpu_count() or 1)
    with progress(f"calibrating {mesh} over {mesh.num_devices} processes"):
        profile = rtorch.calibrate(mesh, name, count=count, rounds=rounds)
    version = find_backend("torch").version()
    return profile, f"torch {version} over gloo, {mesh.num_devices} processes as {mesh}"


WAYS = {"jax": _of_jax, "mpi": _of_mpi, "torch": _of_torch}
