"""Where the time of a run went."""

from pathlib import Path

from rlrefine.training.folder import complete_lines

WALL = "seconds/"


def seconds_by_phase(timing: Path) -> dict[str, dict[str, float]]:
    """Stage → phase → seconds on the wall, of all steps; of a step that was run again, the last time counts."""
    latest = {(record["stage"], record["step"]): record for record in complete_lines(timing)}
    found: dict[str, dict[str, float]] = {}
    for (stage, _), record in latest.items():
        phases = found.setdefault(stage, {})
        for name, value in record.items():
            if name.startswith(WALL):
                phase = name.removeprefix(WALL)
                phases[phase] = phases.get(phase, 0.0) + value
    return found
