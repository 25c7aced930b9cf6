"""What the visual prompt's guidance does to a trained stage: ``python -m studies.guidance OUT RUN [RUN …]``.

The runs are seeds of one recipe. Each one's last stage edits the same held-out rows from the same noise at every scale
from 1 to 6; rows and seeds are resampled together. ``OUT.json`` holds the means with their intervals, ``OUT.svg`` the
curves.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlrefine.data.build import open_rows
from rlrefine.evaluation.arms import Evaluator, Table
from rlrefine.evaluation.statistics import crossed_interval
from rlrefine.evaluation.summary import interval_of, values_of
from rlrefine.report.figure import COLOURS, INK, figure, plain, saved
from rlrefine.tables import markdown
from rlrefine.training.engine import Engine
from rlrefine.training.finished import finished_stage
from rlrefine.training.progress import Reporter, reporting
from rlrefine.training.publish import write_text

CONDITION = "style"
SCALES = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
ROWS = 64
SHOWN = {
    "reward_colour": "colour of the style image",
    "reward_texture": "texture of the style image",
    "reward_structure": "structure of the input",
    "draft_psnr_outside_mask": "outside the part, PSNR to the input, dB",
}


def tables_of(root: Path, report: Reporter) -> dict[float, Table]:
    """The values of every row at every scale."""
    stage = finished_stage(root)
    recipe, engine = stage.recipe, Engine(stage.recipe.engine)
    assert recipe.data.heldout is not None
    rows = open_rows(recipe.data.heldout, recipe.data.size, recipe.data.choices)
    policy, found = stage.policy(engine.device), {}
    for scale in SCALES:
        guidance = recipe.evaluation.guidance
        assert isinstance(guidance, Mapping)
        scaled = replace(recipe, evaluation=replace(recipe.evaluation, guidance={**guidance, CONDITION: scale}))
        evaluator = Evaluator.of(scaled, rows, min(ROWS, recipe.evaluation.rows), engine, report)
        found[scale], _ = evaluator.policy(policy)
    return found


def curve(runs: Sequence[Mapping[float, Table]]) -> dict[str, Any]:
    """Means at each scale, and how far each is from the first scale, with intervals over rows and seeds."""
    first = SCALES[0]
    measures = list(runs[0][first])
    values = {scale: {name: values_of([run[scale] for run in runs], name) for name in measures} for scale in SCALES}
    return {
        "seeds": len(runs),
        "rows": len(next(iter(runs[0][first].values()))),
        "condition": CONDITION,
        "scales": {
            f"{scale:g}": {
                name: {
                    "is": crossed_interval(values[scale][name]).to_dict(),
                    f"minus {first:g}": crossed_interval(values[scale][name] - values[first][name]).to_dict(),
                }
                for name in measures
            }
            for scale in SCALES
        },
    }


def table(found: Mapping[str, Any]) -> str:
    """The curve in Markdown: what is reached at each scale, and in brackets how far from the first it may be."""
    lines = []
    for scale, measures in found["scales"].items():
        cells = []
        for name in SHOWN:
            entry = measures[name]
            (moved,) = (value for key, value in entry.items() if key != "is")
            change = interval_of(moved)
            digits = 2 if "psnr" in name else 3
            cells.append(f"{entry['is']['mean']:.{digits}f} [{change.low:+.{digits}f}, {change.high:+.{digits}f}]")
        lines.append([scale, *cells])
    return markdown([f"guidance of the {found['condition']}", *SHOWN.values()], lines)


def drawing(found: Mapping[str, Any]) -> str:
    """The curves as SVG text, one panel a measure."""
    scales = [float(scale) for scale in found["scales"]]
    with figure(8.4, 2.4, len(SHOWN)) as (drawn, panels):
        for axes, (name, title), colour in zip(panels, SHOWN.items(), COLOURS, strict=False):
            entries = [interval_of(measures[name]["is"]) for measures in found["scales"].values()]
            axes.fill_between(scales, [e.low for e in entries], [e.high for e in entries], color=colour, alpha=0.15)
            axes.plot(scales, [e.mean for e in entries], "o-", color=colour, markersize=4, linewidth=1.4)
            axes.set_title(title.replace(" of ", "\nof ").replace(", ", ",\n"), color=INK, fontsize=8, loc="left")
            axes.set_xticks(scales)
            plain(axes)
        drawn.supxlabel(f"guidance of the {found['condition']}", color=INK, fontsize=9)
        return saved(drawn).decode()


def main(out: Path, roots: Sequence[Path]) -> None:
    """Measure all runs, and write what was found."""
    with reporting() as report:
        runs = []
        for root in roots:
            runs.append(tables_of(root, report))
            report.say(f"{root}: {len(SCALES)} scales")
    found = curve(runs)
    write_text(out.with_suffix(".json"), json.dumps(found, indent=1) + "\n")
    write_text(out.with_suffix(".svg"), drawing(found))
    print(table(found), end="")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(root) for root in sys.argv[2:]])
