"""What the notations of other projects have words for, and the one error where they have none."""

from __future__ import annotations

from collections.abc import Sequence

from redistrib.errors import LayoutError
from redistrib.synth.plan.collectives import Exchange
from redistrib.text import brief
from redistrib.types.array_type import ArrayType
from redistrib.types.canonical import as_shape
from redistrib.types.digits import DeviceDigit, Factor
from redistrib.types.mesh import Mesh
from redistrib.types.uneven import CEIL, Ceil


def no_word(notation: str, subject: str, t: ArrayType) -> LayoutError:
    """The error for a layout that a notation cannot say."""
    return LayoutError(f"{notation} has no word for {subject}; got {t}", notation=notation, type=t)


def no_exchange(step: Exchange) -> LayoutError:
    """The error for a step that no program in StableHLO or jax.lax has one collective for."""
    return LayoutError(
        "no single collective of StableHLO or jax.lax is an exchange, point to point; a plan with "
        "the strategy 'collectives' has none",
        step=step,
    )


def array_shape(
    shape: Sequence[int] | None, mesh: Mesh | None, *, stated: bool = False
) -> tuple[int, ...]:
    """The global shape of an array whose layout is read; `stated`: the text may have the mesh.

    Raises LayoutError where either is something else.
    """
    if not (isinstance(mesh, Mesh) or (stated and mesh is None)):
        raise LayoutError(f"a layout is read on a Mesh; got {brief(mesh)}", mesh=mesh)
    return as_shape(shape)


def owners(t: ArrayType, notation: str, *, ceil: bool = False) -> list[list[DeviceDigit]]:
    """The device digits of each dimension, major to minor.

    Raises LayoutError where a local factor stands among them, and for an uneven dimension: `ceil`
    says that the notation means blocks by that rule.
    """
    dims: list[list[DeviceDigit]] = []
    for _, rule in t.uneven:
        if not (ceil and isinstance(rule, Ceil)):
            raise no_word(notation, f"uneven blocks under the rule {rule}", t)
    for factors in t.dims:
        digits = [factor for factor in factors if isinstance(factor, DeviceDigit)]
        if len(digits) < len(factors):
            raise no_word(notation, "a local factor before an axis", t)
        dims.append(digits)
    return dims


def whole_owners(t: ArrayType, notation: str, *, ceil: bool = False) -> list[list[str]]:
    """The axes of each dimension, major to minor. Raises LayoutError for parts of axes too."""
    dims = owners(t, notation, ceil=ceil)
    return [[_whole(digit, t, notation) for digit in digits] for digits in dims]


def whole_partial(t: ArrayType, notation: str) -> list[str]:
    """The axes of the partial set. Raises LayoutError for parts of axes."""
    return [_whole(digit, t, notation) for digit in t.partial]


def with_copies(
    mesh: Mesh,
    dtype: object,
    shape: Sequence[int],
    dims: Sequence[Sequence[str | Factor]],
    partial: Sequence[str | DeviceDigit],
    copies: Sequence[str | DeviceDigit],
    reduction: str = "sum",
) -> ArrayType:
    """The type where a text also names axes that hold copies; uneven dimensions fall into `ceil`.

    Raises LayoutError for an illegal type, also where an axis of `copies` has another role.
    """
    rules = dict.fromkeys(range(len(shape)), CEIL)
    if copies:
        ArrayType(mesh, dtype, shape, dims, (*partial, *copies), uneven=rules)
    return ArrayType(mesh, dtype, shape, dims, partial, reduction, rules)


def check_reduction(t: ArrayType, notation: str, *known: str) -> None:
    """Raise LayoutError for a partial array with a reduction other than a sum or the known ones."""
    if t.reduction not in (None, "sum", *known):
        raise no_word(notation, f"a partial {t.reduction}", t)


def check_complete(t: ArrayType, notation: str) -> None:
    """Raise LayoutError for a partial array."""
    if t.partial:
        raise no_word(notation, "a partial array", t)


def check_device_order(t: ArrayType, notation: str) -> None:
    """Raise LayoutError for a mesh with an order of devices of its own."""
    if t.mesh.devices is not None:
        raise no_word(notation, "the order of the devices of a mesh", t)


def _whole(digit: DeviceDigit, t: ArrayType, notation: str) -> str:
    if digit.size != t.mesh.axis_size(digit.axis):
        raise no_word(notation, f"a part of an axis, {digit}", t)
    return digit.axis
