"""A plan as Python text: a function of one device's tile, for use inside jax.shard_map."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from redistrib.errors import LayoutError
from redistrib.interop.jax_text import format_partition_spec
from redistrib.interop.words import no_exchange
from redistrib.synth.plan.data import Plan, check_even
from redistrib.synth.plan.tile_program import Fetch, Groups, Send, Shape, interpret, tile_program
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
    check_even(plan, "a program of jax.lax")
    body = _Body(plan.src)
    shape = plan.src.tile_shape
    for part in tile_program(plan.steps, plan.types):
        body.lines.append(f"    # {part.step.collective}: {part.before}")
        shape = interpret(part.operations, body, shape)
    lines = ["def redistribute(tile):", *body.lines, f"    # {plan.types[-1]}", "    return tile"]
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
    text = "\n".join(lines)
    header = [
        f'"""{plan.src} -> {plan.types[-1]} on the mesh {plan.src.mesh}.',
        "",
        "`redistribute` takes a device's tile to its new tile, inside shard_map over these axes.",
        '"""',
        "",
        *(["import jax"] if specs else []),
        *(["import jax.numpy as jnp"] if "jnp." in text else []),
        *(["from jax import lax"] if "lax." in text else []),
        *(["from jax.sharding import PartitionSpec as P"] if specs else []),
        "",
        "",
    ]
    return "\n".join([*header, text])


class _Body:
    """The lines of the function: each operation gives the variable `tile` a new value.

    As `Primitives`, it takes and gives the shape of that value.
    """

    def __init__(self, src: ArrayType) -> None:
        self.dtype, self.boolean = src.numpy_dtype, src.dtype == "bool"
        self.lines: list[str] = []

    def set(self, expression: str, shape: Shape) -> Shape:
        """Append an assignment of an expression in terms of `tile`, whose value has a shape."""
        self.lines.append(f"    tile = {expression}")
        return shape

    def reshape(self, tile: Shape, shape: Shape) -> Shape:  # noqa: ARG002
        return self.set(f"tile.reshape({_tuple(shape)})", shape)

    def transpose(self, tile: Shape, order: tuple[int, ...]) -> Shape:
        return self.set(f"tile.transpose({_tuple(order)})", tuple(tile[axis] for axis in order))

    def pick(self, pieces: Shape, groups: Groups) -> Shape:
        number = _place(groups)
        return self.set(f"lax.dynamic_index_in_dim(tile, {number}, keepdims=False)", pieces[1:])

    def place(self, piece: Shape, groups: Groups, reduction: str) -> Shape:
        shape = (groups.size, *piece)
        identity = f"jnp.full({_tuple(shape)}, {self._identity(reduction)}, tile.dtype)"
        number = _place(groups)
        return self.set(f"lax.dynamic_update_index_in_dim({identity}, tile, {number}, 0)", shape)

    def gather(self, tile: Shape, groups: Groups) -> Shape:
        return self.set(f"lax.all_gather(tile, {_over(groups)})", (groups.size, *tile))

    def swap(self, pieces: Shape, groups: Groups) -> Shape:
        return self.set(_all_to_all(groups), pieces)

    def scatter(self, pieces: Shape, groups: Groups, reduction: str) -> Shape:
        if reduction == "sum" and not self.boolean:
            return self.set(f"lax.psum_scatter(tile, {_over(groups)})", pieces[1:])
        return self.set(self._fold(_all_to_all(groups), reduction), pieces[1:])

    def reduce(self, tile: Shape, groups: Groups, reduction: str) -> Shape:
        if reduction in _NATIVE and not self.boolean:
            return self.set(f"lax.{_NATIVE[reduction]}(tile, {_over(groups)})", tile)
        return self.set(self._fold(f"lax.all_gather(tile, {_over(groups)})", reduction), tile)

    def keep_first(self, tile: Shape, groups: Groups, reduction: str) -> Shape:
        identity = f"jnp.array({self._identity(reduction)}, tile.dtype)"
        return self.set(f"jnp.where({_place(groups)} == 0, tile, {identity})", tile)

    def send(self, tile: Shape, operation: Send) -> Shape:
        mesh = _axes_of(operation.step.axes, operation.mesh)
        sources = Send(mesh, operation.step).sources().tolist()
        pairs = [(source, position) for position, source in enumerate(sources)]
        return self.set(f"lax.ppermute(tile, {_tuple(mesh.sizes)}, {pairs})", tile)

    def fetch(self, tile: Shape, operation: Fetch) -> Shape:  # noqa: ARG002
        raise no_exchange(operation.step)

    def _identity(self, reduction: str) -> str:
        value = identity(self.dtype, reduction)
        text = repr(getattr(value, "item", lambda: value)())
        return f"float({text!r})" if text in ("inf", "-inf") else text

    def _fold(self, pieces: str, reduction: str) -> str:
        name = (_BOOL_FOLDS if self.boolean else _FOLDS)[reduction]
        return f"{pieces}.{name}(0).astype(tile.dtype)"


def _all_to_all(of: Groups) -> str:
    return f"lax.all_to_all(tile, {_over(of, 'split_axis=0, concat_axis=0')})"


def _over(of: Groups, more: str = "") -> str:
    """The axes of a collective; for parts of axes also the groups along these axes."""
    arguments = [_tuple([d.axis for d in of.digits])] + [more] * bool(more)
    if any(digit.size != of.mesh.axis_size(digit.axis) for digit in of.digits):
        mesh = _axes_of(of.digits, of.mesh)
        arguments[0] = _tuple(mesh.sizes)
        arguments.append(f"axis_index_groups={groups(mesh, of.digits).tolist()}")
    return ", ".join(arguments)


def _axes_of(digits: Sequence[DeviceDigit], mesh: Mesh) -> Mesh:
    """The axes of the mesh that these digits are parts of."""
    used = {digit.axis for digit in digits}
    return Mesh([(name, size) for name, size in mesh.axes if name in used])


def _place(of: Groups) -> str:
    """The place of this device in its group, the row-major value of the digits.

    >>> _place(Groups(Mesh(x=2, y=8), (DeviceDigit("x", 1, 2), DeviceDigit("y", 2, 2))))
    "lax.axis_index('x') * 2 + lax.axis_index('y') // 2 % 2"
    """
    if all(digit.size == of.mesh.axis_size(digit.axis) for digit in of.digits):
        names = [digit.axis for digit in of.digits]
        return f"lax.axis_index({_tuple(names) if len(names) > 1 else repr(names[0])})"
    terms = []
    weight = 1
    for digit in reversed(of.digits):
        stride = of.mesh.axis_size(digit.axis) // digit.end
        term = f"lax.axis_index({digit.axis!r})"
        term += f" // {stride}" * (stride > 1) + f" % {digit.size}" * (digit.pre > 1)
        terms.append(term + f" * {weight}" * (weight > 1))
        weight *= digit.size
    return " + ".join(reversed(terms))


def _tuple(items: Iterable[object]) -> str:
    return repr(tuple(items))
