"""Other libraries' redistributions of the same tiles, where they are here and can do the job."""

from __future__ import annotations


class CannotError(Exception):
    """A library that is not here, or cannot do this job."""


METHODS = {}
