"""How often a law is tried on random inputs: a few times, or many where REDISTRIB_TESTS=many.

`make test` tries few, `make exhaustive` many. The first few of the many are the same inputs.
"""

from __future__ import annotations

import os

MANY = os.environ.get("REDISTRIB_TESTS") == "many"


def repetitions(few: int, many: int) -> int:
    """`few`, or `many` under `make exhaustive`."""
    return many if MANY else few
