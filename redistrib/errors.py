"""The errors of the library. Each carries the offending values as attributes."""

from __future__ import annotations

from typing import Any


class RedistribError(Exception):
    """Root of all errors raised on purpose by this library.

    The message states the rule, what was given and what is legal; the offending
    values are attributes of the exception.

    >>> RedistribError("unknown axis 'q'", axis="q").axis
    'q'
    """

    def __init__(self, message: str, **values: Any) -> None:
        super().__init__(message)
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")


class TypeSyntaxError(RedistribError):
    """Malformed text of a type or a mesh; `text` and `column` (from 1) say where."""


class LayoutError(RedistribError):
    """A mesh, an array type or a pair of types that breaks a rule of the type system."""


class WeightMapError(RedistribError):
    """A weight map that does not hold together; `line` and `column` (from 1) if it is a text."""


class InfeasibleError(RedistribError):
    """No plan exists under the limit; `memory_limit` and `least_bytes` are bytes per device."""


class CheckError(RedistribError):
    """A plan is not what it claims to be; `step` is the index of the step at fault, if one is."""


class BackendError(RedistribError):
    """A backend is missing, or was given data that does not fit the plan."""
