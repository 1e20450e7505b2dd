"""How a claim of a plan is refused."""

from __future__ import annotations

from redistrib.errors import CheckError


def require(holds: bool, claim: str) -> None:
    """Raise CheckError unless a claim holds."""
    if not holds:
        raise CheckError(f"does not hold: {claim}")
