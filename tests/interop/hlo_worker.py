"""Reads sharding strings, a JSON list, and prints what jaxlib's HloSharding makes of each.

In a process of its own: HloSharding aborts on some malformed strings.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from jaxlib.xla_client import HloSharding


def main() -> None:
    answers: list[dict[str, Any]] = []
    for text in json.load(sys.stdin):
        found = HloSharding.from_string(text)
        answer: dict[str, Any] = {"text": str(found)}
        if text.startswith("{devices"):  # v3 has no tile assignment: asking for it aborts
            answer["sizes"] = found.tile_assignment_dimensions()
            answer["devices"] = list(found.tile_assignment_devices())
        answers.append(answer)
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
