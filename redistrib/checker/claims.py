"""How a claim of a plan is refused, and how much may be enumerated to find out.

>>> require(4 <= 3, "no tile is above {} bytes; the largest is {}", 3, 4)
Traceback (most recent call last):
redistrib.errors.CheckError: does not hold: no tile is above 3 bytes; the largest is 4
"""

from __future__ import annotations

from redistrib.errors import CheckError


def require(holds: bool, claim: str, *values: object) -> None:
    """Raise CheckError unless a claim holds; `values` stand in the places `{}` of the claim."""
    if not holds:
        raise CheckError(f"does not hold: {claim.format(*values) if values else claim}")


class Effort:
    """How many things may be enumerated in all, counted before they are.

    The plans of 65,536 devices take a few hundred thousand; the limit takes under a second.
    """

    def __init__(self, most: int = 1 << 23) -> None:
        self.most = self.left = most

    def spend(self, count: int) -> None:
        """Raise CheckError where that is more than there is left."""
        if count > self.left:
            raise CheckError(
                f"where digits do not match, a checker enumerates at most {self.most} things; "
                f"this plan needs more"
            )
        self.left -= count
