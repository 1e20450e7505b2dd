"""A plan as a StableHLO program: one function on one device's tile, with replica groups.

The program has one replica per device: replica r is the device at position r (row-major) of the
mesh, whatever its id; a runtime's device assignment says which device that is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from redistrib.interop.programs.mlir import element_type, tensor_type
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
from redistrib.types.mesh import Mesh
from redistrib.types.reduction import identity
from redistrib.types.tile import groups, numbers

Shape = tuple[int, ...]

_REDUCERS = {"sum": "add", "prod": "multiply", "max": "maximum", "min": "minimum"}
_BOOL_REDUCERS = {"sum": "or", "prod": "and", "max": "or", "min": "and"}


def plan_to_stablehlo(plan: Plan) -> str:
    """A module whose @main takes a device's tile of the source to its tile of the target.

    Raises LayoutError for an exchange.
    """
    body = _Body(plan.src.mesh, plan.src.dtype, plan.src.numpy_dtype)
    for step, before, operations in with_shapes(plan.steps, plan.types):
        body.lines.append(f"// {step.collective}: {before}")
        for operation, shape, result in operations:
            body.add(operation, shape, result)
    argument, result_type = (tensor_type(t.tile_shape, t.dtype) for t in (plan.src, plan.types[-1]))
    attributes = f"mhlo.num_partitions = 1 : i32, mhlo.num_replicas = {body.devices} : i32"
    lines = [
        f"module @redistribute attributes {{{attributes}}} {{",
        f"  // {plan.src} -> {plan.types[-1]} on the mesh {plan.src.mesh}",
        f"  func.func public @main(%0: {argument}) -> {result_type} {{",
        *(f"    {line}" for line in body.lines),
        f"    return %{body.tile} : {result_type}",
        "  }",
        "}",
    ]
    return "\n".join(lines)


class _Body:
    """The operations of the function; `tile` is the number of the value that holds the tile."""

    def __init__(self, mesh: Mesh, dtype: str, numpy_dtype: np.dtype[Any]) -> None:
        self.mesh, self.dtype, self.numpy_dtype = mesh, dtype, numpy_dtype
        self.devices = mesh.num_devices
        self.lines: list[str] = []
        self.tile = self.values = 0

    def add(self, operation: Operation, shape: Shape, result: Shape) -> None:
        """Append an operation that takes the tile of one shape to another."""
        match operation:
            case Reshape():
                self.tile = self._reshape(self.tile, shape, result)
            case Transpose(order):
                dims = f"dims = {list(order)}"
                arrow = f"({self._type(shape)}) -> {self._type(result)}"
                self.tile = self._value(f"stablehlo.transpose %{self.tile}, {dims} : {arrow}")
            case Pick(digits):
                start = self._starts(self._number(digits), len(shape))
                sizes = [1, *shape[1:]]
                types = ", ".join([self._type(shape), *["tensor<i32>"] * len(shape)])
                picked = self._value(
                    f"stablehlo.dynamic_slice %{self.tile}, {start}, sizes = {sizes} : "
                    f"({types}) -> {self._type(sizes)}"
                )
                self.tile = self._reshape(picked, sizes, result)
            case Place(digits, reduction):
                rest = self._identity(result, reduction)
                piece = self._reshape(self.tile, shape, (1, *shape))
                start = self._starts(self._number(digits), len(result))
                types = ", ".join(
                    [self._type(result), self._type((1, *shape)), *["tensor<i32>"] * len(result)]
                )
                self.tile = self._value(
                    f"stablehlo.dynamic_update_slice %{rest}, %{piece}, {start} : "
                    f"({types}) -> {self._type(result)}"
                )
            case Gather(digits):
                one = self._reshape(self.tile, shape, (1, *shape))
                self.tile = self._collective(
                    "all_gather", one, (1, *shape), result, digits, "all_gather_dim = 0 : i64"
                )
            case Swap(digits):
                attributes = (
                    "split_dimension = 0 : i64, concat_dimension = 0 : i64, "
                    f"split_count = {shape[0]} : i64"
                )
                self.tile = self._collective(
                    "all_to_all", self.tile, shape, result, digits, attributes
                )
            case Scatter(digits, reduction):
                one = self._collective(
                    "reduce_scatter",
                    self.tile,
                    shape,
                    (1, *result),
                    digits,
                    "scatter_dimension = 0 : i64",
                    self._reducer(reduction),
                )
                self.tile = self._reshape(one, (1, *result), result)
            case Reduce(digits, reduction):
                self.tile = self._collective(
                    "all_reduce", self.tile, shape, result, digits, "", self._reducer(reduction)
                )
            case KeepFirst(digits, reduction):
                rest = self._identity(shape, reduction)
                zero = self._value("stablehlo.constant dense<0> : tensor<i32>")
                first = self._value(
                    f"stablehlo.compare EQ, %{self._number(digits)}, %{zero} : "
                    "(tensor<i32>, tensor<i32>) -> tensor<i1>"
                )
                self.tile = self._value(
                    f"stablehlo.select %{first}, %{self.tile}, %{rest} : "
                    f"tensor<i1>, {self._type(shape)}"
                )
            case Send(step):
                pairs = [
                    [source, to]
                    for to, source in enumerate(permute_sources(self.mesh, step).tolist())
                ]
                self.tile = self._value(
                    f'"stablehlo.collective_permute"(%{self.tile}) '
                    f"<{{source_target_pairs = {_dense(pairs)}}}> : "
                    f"({self._type(shape)}) -> {self._type(result)}"
                )
            case _:
                assert_never(operation)

    def _collective(
        self,
        name: str,
        value: int,
        shape: Shape,
        result: Shape,
        digits: Digits,
        attributes: str,
        region: str = "",
    ) -> int:
        listed = _dense(groups(self.mesh, digits).tolist())
        given = ", ".join(filter(None, [attributes, f"replica_groups = {listed}"]))
        return self._value(
            f'"stablehlo.{name}"(%{value}) <{{{given}}}>{region} : '
            f"({self._type(shape)}) -> {self._type(result)}"
        )

    def _number(self, digits: Digits) -> int:
        """The row-major value of these digits on this device, looked up by its replica id."""
        table = numbers(self.mesh, digits)
        listed = self._value(f"stablehlo.constant {_dense(table.tolist(), 'i32')}")
        replica = self._value("stablehlo.replica_id : tensor<ui32>")
        one = self._value(
            f"stablehlo.dynamic_slice %{listed}, %{replica}, sizes = [1] : "
            f"(tensor<{self.devices}xi32>, tensor<ui32>) -> tensor<1xi32>"
        )
        return self._value(f"stablehlo.reshape %{one} : (tensor<1xi32>) -> tensor<i32>")

    def _starts(self, number: int, rank: int) -> str:
        """The start of a slice: a number in front, zeros behind."""
        if rank == 1:
            return f"%{number}"
        zero = self._value("stablehlo.constant dense<0> : tensor<i32>")
        return ", ".join([f"%{number}", *[f"%{zero}"] * (rank - 1)])

    def _identity(self, shape: Shape, reduction: str) -> int:
        value = np.asarray(identity(self.numpy_dtype, reduction), self.numpy_dtype)
        return self._value(f"stablehlo.constant dense<{_literal(value)}> : {self._type(shape)}")

    def _reducer(self, reduction: str) -> str:
        scalar = f"tensor<{element_type(self.dtype)}>"
        name = (_BOOL_REDUCERS if self.dtype == "bool" else _REDUCERS)[reduction]
        return (
            f" ({{ ^bb0(%a: {scalar}, %b: {scalar}): "
            f"%c = stablehlo.{name} %a, %b : {scalar} "
            f"stablehlo.return %c : {scalar} }})"
        )

    def _reshape(self, value: int, shape: Sequence[int], result: Sequence[int]) -> int:
        if tuple(shape) == tuple(result):
            return value
        return self._value(
            f"stablehlo.reshape %{value} : ({self._type(shape)}) -> {self._type(result)}"
        )

    def _type(self, shape: Sequence[int]) -> str:
        return tensor_type(shape, self.dtype)

    def _value(self, operation: str) -> int:
        self.values += 1
        self.lines.append(f"%{self.values} = {operation}")
        return self.values


def _dense(values: list[Any], element: str = "i64") -> str:
    """Integers as an attribute with its type.

    >>> _dense([[0, 1], [2, 3]])
    'dense<[[0, 1], [2, 3]]> : tensor<2x2xi64>'
    """
    shape = "x".join(map(str, np.shape(values)))
    return f"dense<{values}> : tensor<{shape}x{element}>"


def _literal(value: NDArray[Any]) -> str:
    """A scalar as MLIR writes it; what is no number by its bits."""
    match value.dtype.kind:
        case "b":
            return "true" if value else "false"
        case "c":
            return f"({_literal(value.real)}, {_literal(value.imag)})"
        case "i" | "u":
            return str(int(value))
        case _:
            if abs(float(value)) <= 1:
                return f"{float(value):.1f}"
            size = value.dtype.itemsize
            return f"0x{int(value.view(f'u{size}')):0{2 * size}X}"
