"""What an unfinished run has measured, so that the next call goes on behind it.

A git-ignored file of lines of JSON. The first says under which settings, versions and commit it was
measured; a run that differs in these starts afresh. Every other line is one finding of one part.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Figures = dict[str, Any]

NOT_RUN = "not_run"
"""The key of a finding that says why there is none; the next call tries again."""


class OutOfTimeError(Exception):
    """The time that this call may take is over; what was found is in the file."""


class Journal:
    """The findings of a run, each made once; `until` is when to stop, by time.monotonic()."""

    def __init__(self, path: Path, about: Figures, until: float = math.inf) -> None:
        self._path = path
        self._until = until
        self._findings: dict[tuple[str, str], Any] = {}
        self._seconds: dict[str, float] = {}
        if self._read(about):
            progress(f"going on from {path.name}: {len(self._findings)} findings")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(about) + "\n", encoding="utf-8")

    def _read(self, about: Figures) -> bool:
        """Take what is in the file; False if there is nothing for this run."""
        if not self._path.exists():
            return False
        first, *lines = self._path.read_text(encoding="utf-8").splitlines() or [""]
        if first != json.dumps(about):
            progress(f"{self._path.name} is of other settings, versions or code: starting afresh")
            return False
        # The last line may be cut off in the middle.
        complete = [line for line in lines if line.endswith("}")]
        for line in complete:
            entry = json.loads(line)
            if NOT_RUN not in (entry["found"] or ()):
                self._keep(entry)
        if complete != lines:
            text = "".join(f"{line}\n" for line in (first, *complete))
            self._path.write_text(text, encoding="utf-8")
        return True

    def _keep(self, entry: Figures) -> None:
        part = entry["part"]
        self._findings[part, entry["name"]] = entry["found"]
        self._seconds[part] = self._seconds.get(part, 0.0) + entry["seconds"]

    def __getitem__(self, key: tuple[str, str]) -> Any:
        """The finding of a part and name."""
        return self._findings[key]

    def __contains__(self, key: tuple[str, str]) -> bool:
        """Whether a part and name has been found."""
        return key in self._findings

    @property
    def seconds(self) -> dict[str, float]:
        """What each part has taken so far, over all calls."""
        return rounded(self._seconds)  # type: ignore[no-any-return]

    def once(self, part: str, name: str, make: Callable[[], Any]) -> Any:
        """The finding of a part and name, made now unless the file has it.

        Raises OutOfTimeError if it would have to be made after `until`.
        """
        if (part, name) not in self._findings:
            start = time.monotonic()
            if start > self._until:
                raise OutOfTimeError
            finding = rounded(make())
            seconds = rounded(time.monotonic() - start)
            entry = {"part": part, "name": name, "seconds": seconds, "found": finding}
            text = json.dumps(entry)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(text + "\n")
            self._keep(json.loads(text))
        return self._findings[part, name]

    def close(self) -> None:
        """Everything is in the results: the next run measures anew."""
        self._path.unlink(missing_ok=True)


def rounded(value: Any) -> Any:
    """The same with four significant digits per fraction."""
    match value:
        case float():
            return float(f"{value:.4g}")
        case dict():
            return {key: rounded(inner) for key, inner in value.items()}
        case list() | tuple():
            return [rounded(inner) for inner in value]
        case _:
            return value


def progress(text: str) -> None:
    """One line on stderr."""
    sys.stderr.write(f"bench: {text}\n")
    sys.stderr.flush()


def duration(seconds: float) -> str:
    """Seconds as a person says it."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02} min"
