"""The pictures of a page: held-out rows before and after, the same rows over time, and the most telling groups."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from rlrefine.data.images import to_image
from rlrefine.data.loading import Rows
from rlrefine.data.records import Example
from rlrefine.evaluation.pictures import cells
from rlrefine.report.html import Album
from rlrefine.report.runs import ShownRun
from rlrefine.training.groups import KINDS
from rlrefine.training.stage import SAMPLE_PICTURES

CARDS = 9
"""Held-out rows that are shown, the first ones: nothing was chosen."""
ROWS = 4
"""Validation rows that are followed over time."""
LOOKS = 8
"""Moments of a timeline, at most."""
STEPS = 3
"""Steps whose groups are shown, at most."""
LARGE, SMALL = 512, 192
"""Pixels of a picture's longer side, at most."""


def cards(runs: Sequence[ShownRun], album: Album) -> list[dict[str, Any]]:
    """For the first held-out rows: the draft and what became of it, to be compared, and all that belongs to them.

    Of one run every arm is shown, of several the last stage of each.
    """
    found = []
    for index in range(CARDS):
        card = _card(runs, index, album)
        if card is None:
            break
        found.append(card)
    return found


def _card(runs: Sequence[ShownRun], index: int, album: Album) -> dict[str, Any] | None:
    folders = _arms(runs)
    files = {name: folder / f"{index:03d}.png" for name, folder in folders.items()}
    files = {name: file for name, file in files.items() if file.is_file()}
    rows, last = runs[0].heldout, runs[0].last_stage if len(runs) == 1 else runs[0].name
    example = None if rows is None or index >= len(rows) else rows.example(index)
    if "draft" not in files or last not in files:
        return None
    before, after = (album.picture(Image.open(files[name]), LARGE) for name in ("draft", last))
    if before is None or after is None:
        return None
    others = _others({name: file for name, file in files.items() if name not in ("draft", last)}, example, album)
    return {
        "id": example.id if example else f"row {index}",
        "prompt": example.prompt if example else "",
        "before": {"name": "draft", "image": before},
        "after": {"name": last, "image": after},
        "others": others,
    }


def _arms(runs: Sequence[ShownRun]) -> dict[str, Path]:
    """What is shown of each row → the folder with its pictures; drafts are those of the first run."""
    first = runs[0].folder.evaluation
    if len(runs) > 1:
        return {"draft": first / "draft"} | {run.name: run.folder.evaluation / run.last_stage for run in runs}
    return {arm: first / arm for arm in (runs[0].summary or {"arms": ()})["arms"]}


def _others(files: Mapping[str, Path], example: Example | None, album: Album) -> list[dict[str, Any]]:
    """References, the target, and the other arms."""
    given = [] if example is None else [(each.role, to_image(each.image)) for each in example.references]
    target = [("target", to_image(example.target))] if example is not None and example.target is not None else []
    made = [(name, Image.open(file)) for name, file in files.items()]
    pictures = ((name, album.picture(image, SMALL)) for name, image in [*given, *target, *made])
    return [{"name": name.replace("_", " "), "image": image} for name, image in pictures if image]


def timeline(run: ShownRun, label: str, album: Album) -> list[dict[str, Any]]:
    """The first validation rows as a stage left them at each look, always from the same noise."""
    folder = run.folder.samples
    sheets = spread_out(sorted(folder.glob(f"{label}-[0-9]*.png")) if folder.is_dir() else [], LOOKS)
    if not sheets or run.validation is None:
        return []
    looks = [(f"step {int(sheet.stem.rpartition('-')[2])}", sheet) for sheet in sheets]
    examples = [run.validation.example(index) for index in range(_rows_of(run, run.validation))]
    columns = max(2 + len(each.references) + (each.target is not None) for each in examples)
    opened = [(moment, cells(Image.open(sheet), len(examples), columns)) for moment, sheet in looks]
    found = []
    for place, example in enumerate(examples[:ROWS]):
        draft = to_image(example.draft)
        box = (0, 0, *draft.size)
        results = [(moment, sheet[place][1 + len(example.references)].crop(box)) for moment, sheet in opened]
        target = [] if example.target is None else [("target", to_image(example.target))]
        strip = ((name, album.picture(image, SMALL)) for name, image in [("draft", draft), *results, *target])
        pictures = [{"name": name, "image": image} for name, image in strip if image]
        found.append({"id": example.id, "prompt": example.prompt, "pictures": pictures})
    return found


def _rows_of(run: ShownRun, rows: Rows) -> int:
    """How many validation rows a sheet of samples has."""
    return min(SAMPLE_PICTURES, run.recipe.evaluation.validation_rows, len(rows))


def groups(run: ShownRun, label: str, album: Album) -> list[dict[str, Any]]:
    """The most telling groups of a few steps of a stage, the last one first."""
    folder = run.folder.groups
    records = spread_out(sorted(folder.glob(f"{label}-[0-9]*.json")) if folder.is_dir() else [], STEPS)
    return [_step_groups(record, album) for record in reversed(records)]


def _step_groups(file: Path, album: Album) -> dict[str, Any]:
    record = json.loads(file.read_text(encoding="utf-8"))
    columns = 1 + max(len(group["scores"]) for group in record["groups"])
    sheet = cells(Image.open(file.with_suffix(".png")), len(record["groups"]), columns)
    shown = list(_strips(record["groups"], sheet, album))
    return {"step": record["step"], "groups": sorted(shown, key=lambda group: KINDS.index(group["kinds"][0]))}


def _strips(groups: Sequence[Mapping[str, Any]], sheet: Any, album: Album) -> Iterator[dict[str, Any]]:
    for group, row in zip(groups, sheet, strict=True):
        (height, width), scores = group["size"], group["scores"]
        said = ["draft", *(_score(score["total"]) for score in scores)]
        details = ["draft", *("\n".join(f"{name} {_score(value)}" for name, value in s.items()) for s in scores)]
        pictures = [album.picture(cell.crop((0, 0, width, height)), SMALL) for cell in row[: len(said)]]
        shown = zip(said, details, pictures, strict=True)
        yield {
            **{name: group[name] for name in ("kinds", "row", "prompt", "mean", "spread")},
            "pictures": [{"name": name, "said": all_of, "image": image} for name, all_of, image in shown if image],
        }


def _score(value: float | None) -> str:
    return "failed" if value is None else f"{value:.3f}"


def spread_out(items: Sequence[Any], count: int) -> list[Any]:
    """At most so many of the items, evenly spread, the first and the last among them.

    >>> spread_out(range(10), 4)
    [0, 3, 6, 9]
    """
    if len(items) <= count:
        return list(items)
    return [items[round(place * (len(items) - 1) / (count - 1))] for place in range(count)]
