"""A plan as Python text: a function of one device's tile, for use inside jax.shard_map."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import assert_never

from redistrib.errors import LayoutError
from redistrib.interop.jax_text import format_partition_spec
from redistrib.interop.tile_program import (
    Digits,
    Gather,
    KeepFirst,
    Operation,
    Pick,
    Place,
    Reduce,
    Reshape,
    Scatter,
    Send,
    Swap,
    Transpose,
    with_shapes,
)
from redistrib.synth.plan.data import Plan
from redistrib.synth.plan.routing import permute_sources
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit
from redistrib.types.mesh import Mesh
from redistrib.types.reduction import identity
from redistrib.types.tile import groups

_NATIVE = {"sum": "psum", "max": "pmax", "min": "pmin"}
_FOLDS = {"sum": "sum", "prod": "prod", "max": "max", "min": "min"}
_BOOL_FOLDS = {"sum": "any", "prod": "all", "max": "any", "min": "all"}


def plan_to_jax(plan: Plan) -> str:
    """A module with `redistribute(tile)`, and with `compiled(mesh)` where both ends have specs.

    `compiled` gives a jitted function of global arrays. Raises LayoutError for an exchange.
    """
    lines = ["def redistribute(tile):"]
    for step, before, operations in with_shapes(plan.steps, plan.types):
        lines.append(f"    # {step.collective}: {before}")
        for operation, _, result in operations:
            expression = _expression(operation, before, plan, result)
            lines.append(f"    tile = {expression}")
    lines += [f"    # {plan.types[-1]}", "    return tile"]
    try:
        specs = [format_partition_spec(t) for t in (plan.src, plan.types[-1])]
    except LayoutError:
        specs = []
    if specs:
        lines += [
            "",
            "",
            "def compiled(mesh):",
            "    program = jax.shard_map(",
            f"        redistribute, mesh=mesh, in_specs={specs[0]}, out_specs={specs[1]},"
            " check_vma=False",
            "    )",
            "    return jax.jit(program)",
        ]
    body = "\n".join(lines)
    header = [
        f'"""{plan.src} -> {plan.types[-1]} on the mesh {plan.src.mesh}.',
        "",
        "`redistribute` takes a device's tile to its new tile, inside shard_map over these axes.",
        '"""',
        "",
        *(["import jax"] if specs else []),
        *(["import jax.numpy as jnp"] if "jnp." in body else []),
        *(["from jax import lax"] if "lax." in body else []),
        *(["from jax.sharding import PartitionSpec as P"] if specs else []),
        "",
        "",
    ]
    return "\n".join([*header, body])


def _expression(operation: Operation, t: ArrayType, plan: Plan, result: tuple[int, ...]) -> str:
    """The new tile in terms of the old one, called tile."""
    mesh = t.mesh
    boolean = plan.src.dtype == "bool"
    match operation:
        case Reshape(shape):
            return f"tile.reshape({_tuple(shape)})"
        case Transpose(order):
            return f"tile.transpose({_tuple(order)})"
        case Pick(digits):
            return f"lax.dynamic_index_in_dim(tile, {_number(digits, mesh)}, keepdims=False)"
        case Place(digits, reduction):
            rest = f"jnp.full({_tuple(result)}, {_identity(plan, reduction)}, tile.dtype)"
            return f"lax.dynamic_update_index_in_dim({rest}, tile, {_number(digits, mesh)}, 0)"
        case Gather(digits):
            return f"lax.all_gather(tile, {_over(digits, mesh)})"
        case Swap(digits):
            return _swap(digits, mesh)
        case Scatter(digits, reduction):
            if reduction == "sum" and not boolean:
                return f"lax.psum_scatter(tile, {_over(digits, mesh)})"
            return _fold(_swap(digits, mesh), reduction, boolean)
        case Reduce(digits, reduction):
            if reduction in _NATIVE and not boolean:
                return f"lax.{_NATIVE[reduction]}(tile, {_over(digits, mesh)})"
            return _fold(f"lax.all_gather(tile, {_over(digits, mesh)})", reduction, boolean)
        case KeepFirst(digits, reduction):
            rest = f"jnp.array({_identity(plan, reduction)}, tile.dtype)"
            return f"jnp.where({_number(digits, mesh)} == 0, tile, {rest})"
        case Send(step):
            part = _axes_of(step.axes, mesh)
            pairs = [(s, to) for to, s in enumerate(permute_sources(part, step).tolist())]
            return f"lax.ppermute(tile, {_tuple(part.sizes)}, {pairs})"
        case _:
            assert_never(operation)


def _swap(digits: Digits, mesh: Mesh) -> str:
    return f"lax.all_to_all(tile, {_over(digits, mesh, 'split_axis=0, concat_axis=0')})"


def _fold(pieces: str, reduction: str, boolean: bool) -> str:
    name = (_BOOL_FOLDS if boolean else _FOLDS)[reduction]
    return f"{pieces}.{name}(0).astype(tile.dtype)"


def _over(digits: Digits, mesh: Mesh, more: str = "") -> str:
    """The axes of a collective; for parts of axes also the groups along these axes."""
    arguments = [_tuple([d.axis for d in digits])] + [more] * bool(more)
    if any(digit.size != mesh.axis_size(digit.axis) for digit in digits):
        part = _axes_of(digits, mesh)
        arguments[0] = _tuple(part.sizes)
        arguments.append(f"axis_index_groups={groups(part, digits).tolist()}")
    return ", ".join(arguments)


def _axes_of(digits: Sequence[DeviceDigit], mesh: Mesh) -> Mesh:
    """The axes of the mesh that these digits are parts of."""
    used = {digit.axis for digit in digits}
    return Mesh([(name, size) for name, size in mesh.axes if name in used])


def _number(digits: Digits, mesh: Mesh) -> str:
    """The row-major value of these digits on this device.

    >>> _number((DeviceDigit("x", 1, 2), DeviceDigit("y", 2, 2)), Mesh(x=2, y=8))
    "lax.axis_index('x') * 2 + lax.axis_index('y') // 2 % 2"
    """
    if all(digit.size == mesh.axis_size(digit.axis) for digit in digits):
        names = [digit.axis for digit in digits]
        return f"lax.axis_index({_tuple(names) if len(names) > 1 else repr(names[0])})"
    terms = []
    weight = 1
    for digit in reversed(digits):
        stride = mesh.axis_size(digit.axis) // digit.end
        term = f"lax.axis_index({digit.axis!r})"
        term += f" // {stride}" * (stride > 1) + f" % {digit.size}" * (digit.pre > 1)
        terms.append(term + f" * {weight}" * (weight > 1))
        weight *= digit.size
    return " + ".join(reversed(terms))


def _identity(plan: Plan, reduction: str) -> str:
    value = identity(plan.src.numpy_dtype, reduction)
    text = repr(getattr(value, "item", lambda: value)())
    return f"float({text!r})" if text in ("inf", "-inf") else text


def _tuple(items: Iterable[object]) -> str:
    return repr(tuple(items))
