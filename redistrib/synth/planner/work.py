"""What the searches of one problem may look at in all, so that every plan is there soon.

Counted, so that an answer depends on no clock: a step is a price, a place or a collective that is
looked at. Example: of `Work(800)` a search that is not the last takes `share(2)`, at most 400;
where it needs 100, the next has 700. Where nothing is left a search answers with its best so far.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

MAX_STEPS = 11_000
"""Of one problem: each takes five to ten microseconds."""


@dataclass(slots=True)
class Work:
    """The steps that are left."""

    left: int = MAX_STEPS

    @contextmanager
    def share(self, parts: int) -> Iterator[Work]:
        """One of so many parts of what is left, for a search that is not the last.

        What it does not need comes back.
        """
        part = Work(self.left // parts)
        self.left -= part.left
        try:
            yield part
        finally:
            self.left += part.left
