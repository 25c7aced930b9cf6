"""One page that shows a study: it needs no network, holds its pictures in itself, and escapes all that it quotes."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from rlrefine.ablation.figure import forest
from rlrefine.ablation.recipes import StudyRecipes
from rlrefine.ablation.runs import PICTURES
from rlrefine.ablation.table import DETAILS, ONE_SEED, SURE, decimals, details, groups_lines, measures_of, unmarked
from rlrefine.data.images import to_image
from rlrefine.data.loading import Rows
from rlrefine.data.records import Example
from rlrefine.report.html import Album, fitted, render
from rlrefine.report.table import main_columns

SIDE = 192  # pixels of a picture on the page, at most


def page(recipes: StudyRecipes, summary: Mapping[str, Any], rows: Rows, place: Path) -> str:
    """The page as text, under 10 MB.

    Args:
        rows: that all arms were measured on.
        place: folder with the pictures of each arm.
    """
    return fitted(partial(_page, recipes, summary, rows, place))


def _page(recipes: StudyRecipes, summary: Mapping[str, Any], rows: Rows, place: Path, album: Album) -> str:
    study, seed = recipes.study, summary["seeds"][0]
    folders = {name: place / recipes.measured_as(name, seed) for name in study.names}
    return render(
        "ablation/page.html.j2",
        title=recipes.folder.name,
        summary=summary,
        verdicts={reference: verdict(summary, reference) for reference in summary["against"]},
        comparisons=[_comparison(summary, reference, album) for reference in summary["against"]],
        columns=list(DETAILS[1:]),
        caution=ONE_SEED if len(summary["seeds"]) == 1 else "",
        arms=[_arm(name, arm) for name, arm in summary["arms"].items()],
        pictures=list(_pictures(rows, folders, album)),
        full=album.full,
        recipes=[_recipe(recipes.folder / "recipes" / f"{name}.yaml", name) for name in study.arms],
    )


def verdict(summary: Mapping[str, Any], reference: str) -> list[str]:
    """For each arm that surely differs from one where it does and by how much, and in a last line those that do not."""
    titles, lines, level = measures_of(summary), list[str](), list[str]()
    for other, measures in summary["against"][reference].items():
        sure = [name for name in main_columns(measures) if measures[name]["p_holm"] < SURE]
        said = [f"{titles[name]} {_mean(measures[name])}" for name in sure]
        if said:
            lines.append(f"{other}: {'; '.join(said)}")
        else:
            level.append(other)
    return [*lines, *([f"not told apart from it: {', '.join(level)}"] if level else [])]


def _mean(entry: Mapping[str, Any]) -> str:
    return f"{entry['mean']:+.{decimals(entry['low'], entry['high'])}f}"


def _comparison(summary: Mapping[str, Any], reference: str, album: Album) -> dict[str, Any]:
    return {
        "reference": reference,
        "figure": album.figure(forest(summary, reference)),
        "lines": unmarked(details(summary, reference)),
        "groups": unmarked(groups_lines(summary, reference)) if "by" in summary else [],
    }


def _arm(name: str, arm: Mapping[str, Any]) -> list[Any]:
    """What an arm is, and what it took, if it was trained."""
    return [name, arm["about"].replace("`", ""), arm.get("rate", ""), ", ".join(map(str, arm.get("steps") or ()))]


def _recipe(file: Path, name: str) -> dict[str, str]:
    return {"name": name, "text": file.read_text(encoding="utf-8")}


def _pictures(rows: Rows, folders: Mapping[str, Path], album: Album) -> Iterator[dict[str, Any]]:
    """The first rows across the arms, as many as fit: what went in, what it should be, what each arm made of it."""
    for index in range(min(PICTURES, len(rows))):
        files = {name: folder / f"{index:03d}.png" for name, folder in folders.items()}
        if not any(file.is_file() for file in files.values()):
            return
        example = rows.example(index)
        made = {name: Image.open(file) if file.is_file() else None for name, file in files.items()}
        shown = {name: image and album.picture(image, SIDE) for name, image in {**_given(example), **made}.items()}
        if any(shown[name] is None for name, image in made.items() if image):  # there is no more room
            return
        yield {"id": example.id, "prompt": example.prompt, "shown": shown}


def _given(example: Example) -> dict[str, Image.Image]:
    """What a row shows the policy, and what it should become."""
    references = {f"reference {place}": to_image(each.image) for place, each in enumerate(example.references, 1)}
    target = {} if example.target is None else {"target": to_image(example.target)}
    return {"draft": to_image(example.draft), **references, **target}
