"""One page that shows a study: it needs no network, holds its pictures in itself, and escapes all that it quotes."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from rlrefine.ablation.figure import forest
from rlrefine.ablation.recipes import StudyRecipes
from rlrefine.ablation.runs import PICTURES
from rlrefine.ablation.study import UNTRAINED
from rlrefine.ablation.table import DETAILS, SURE, details, groups_lines, unmarked
from rlrefine.data.images import to_image
from rlrefine.data.loading import Rows
from rlrefine.data.records import Example
from rlrefine.evaluation.summary import interval_of
from rlrefine.report.table import COLUMNS

SIDE = 128  # pixels of a picture on the page, at most
LARGEST = 8_000_000
"""Characters of all pictures; rows that would exceed them are left out."""


def page(recipes: StudyRecipes, summary: Mapping[str, Any], rows: Rows, place: Path) -> str:
    """The page as text, under 10 MB.

    Args:
        rows: that all arms were measured on.
        place: folder with the pictures of each arm.
    """
    loader = jinja2.PackageLoader("rlrefine", ".")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    study, seed = recipes.study, summary["seeds"][0]
    folders = {name: place / _folder(recipes, name, seed) for name in study.names}
    return environment.get_template("ablation/page.html.j2").render(
        title=recipes.folder.name,
        summary=summary,
        verdict=[line for reference in summary["against"] for line in verdict(summary, reference)],
        comparisons=[_comparison(summary, reference) for reference in summary["against"]],
        columns=DETAILS[1:],
        shown=list(folders),
        pictures=_pictures(rows, folders),
        recipes=[_recipe(recipes.folder / "recipes" / f"{name}.yaml", name) for name in study.arms],
    )


def verdict(summary: Mapping[str, Any], reference: str) -> list[str]:
    """Which arms surely differ from one, in words, measure by measure; and that none does, if none does."""
    lines = []
    for other, measures in summary["against"][reference].items():
        for name in (name for name in COLUMNS if name in measures):
            entry = measures[name]
            if entry["p_holm"] < SURE:
                word = "above" if entry["mean"] > 0 else "below"
                ends = interval_of(entry)
                size = f"{abs(ends.mean):.3f} ({ends.low:+.3f} to {ends.high:+.3f})"
                lines.append(f"{other} is surely {word} {reference} in {COLUMNS[name]}: by {size}")
    return lines or [f"no arm surely differs from {reference} in the main measures"]


def _folder(recipes: StudyRecipes, name: str, seed: int) -> str:
    if name == UNTRAINED:
        return name
    return f"{name}-seed-{seed}" if name in recipes.study.beginning else recipes.root(name, seed).name


def _comparison(summary: Mapping[str, Any], reference: str) -> dict[str, Any]:
    return {
        "reference": reference,
        "figure": _data_url(forest(summary, reference).encode(), "svg+xml"),
        "lines": unmarked(details(summary, reference)),
        "groups": unmarked(groups_lines(summary, reference)) if "by" in summary else [],
    }


def _recipe(file: Path, name: str) -> dict[str, str]:
    return {"name": name, "text": file.read_text(encoding="utf-8")}


def _pictures(rows: Rows, folders: Mapping[str, Path]) -> list[dict[str, Any]]:
    """The first rows across the arms, as many as fit: what went in, what each arm made of it, what it should be."""
    found, left = list[dict[str, Any]](), LARGEST
    for index in range(min(PICTURES, len(rows))):
        files = [folder / f"{index:03d}.png" for folder in folders.values()]
        if not any(file.is_file() for file in files):
            break
        example = rows.example(index)
        made = [_picture(Image.open(file)) if file.is_file() else None for file in files]
        before, after = _given(example)
        cells = [*before, *made, after]
        left -= sum(len(cell) for cell in cells if cell)
        if left < 0:
            break
        found.append({"id": example.id, "prompt": example.prompt, "cells": cells})
    return found


def _given(example: Example) -> tuple[Sequence[str | None], str | None]:
    """What a row shows the policy, and what it should become."""
    reference = next((_picture(to_image(each.image)) for each in example.references), None)
    target = None if example.target is None else _picture(to_image(example.target))
    return [_picture(to_image(example.draft)), reference], target


def _picture(image: Image.Image) -> str:
    """A picture as it stands in the page: larger ones are made smaller, and none larger."""
    image = image.convert("RGB")
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return _data_url(content.getvalue(), "png")


def _data_url(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
