"""Where the time of a run went."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

WALL = "seconds/"


def seconds_by_phase(timing: Path) -> dict[str, dict[str, float]]:
    """Stage → phase → seconds on the wall, of all steps; of a step that was run again, the last time counts."""
    latest = {(record["stage"], record["step"]): record for record in _records(timing)}
    found: dict[str, dict[str, float]] = {}
    for (stage, _), record in latest.items():
        phases = found.setdefault(stage, {})
        for name, value in record.items():
            if name.startswith(WALL):
                phase = name.removeprefix(WALL)
                phases[phase] = phases.get(phase, 0.0) + value
    return found


def _records(timing: Path) -> Iterator[dict[str, Any]]:
    for line in timing.read_text(encoding="utf-8").splitlines() if timing.is_file() else []:
        with suppress(ValueError):  # cut off by a kill
            yield json.loads(line)
