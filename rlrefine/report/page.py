"""One page that shows a run: it needs no network, holds its pictures in itself, and escapes all that it quotes."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from PIL import Image

from rlrefine.data.images import to_image
from rlrefine.data.loading import Rows
from rlrefine.evaluation.held_out import PICTURES
from rlrefine.evaluation.summary import interval_of
from rlrefine.recipe.schema import Recipe
from rlrefine.report.curves import failures, stage_curves
from rlrefine.report.table import blocks, body, shown_pairs
from rlrefine.training.folder import RunFolder

ZOOM = 2  # small pictures are shown larger, pixel by pixel


def write_report(recipe: Recipe, folder: RunFolder, rows: Rows) -> None:
    """Write ``report.html`` into a run's folder, from what lies there."""
    summary = json.loads(folder.summary.read_text())
    records = folder.read_metrics()
    page = (
        _environment()
        .get_template("page.html.j2")
        .render(
            title=folder.root.name,
            verdict=verdict(summary),
            rows=next(iter(next(iter(summary["arms"].values())).values()))["n"],
            tables=_tables(summary),
            pictures=_pictures(folder, rows, list(summary["arms"])),
            stages=[
                {
                    "label": label,
                    "curves": [
                        _data_url(svg.encode(), "image/svg+xml")
                        for svg in stage_curves([r for r in records if r["stage"] == label])
                    ],
                    "failures": [
                        *failures([r for r in records if r["stage"] == label]),
                        *folder.read_notes(label),
                    ],
                    "samples": _samples(folder, label),
                }
                for label in recipe.stages
            ],
            recipe=folder.resolved.read_text(encoding="utf-8"),
            environment=(folder.root / "environment.json").read_text(encoding="utf-8"),
        )
    )
    folder.report.write_text(page, encoding="utf-8")


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("rlrefine.report", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )


VERDICTS = (
    ("psnr_in_mask", "dB inside the mask"),
    ("draft_psnr_outside_mask", "dB of what should be left alone"),
    ("reward_total", "of reward"),
)


def verdict(summary: Mapping[str, Any]) -> list[str]:
    """What the table says, in words; a difference whose interval holds zero is called open."""
    lines = []
    for later, earlier in shown_pairs(list(summary["arms"])):
        for name, noun in VERDICTS:
            entry = summary["paired"][f"{later}-{earlier}"].get(name)
            if entry is None:
                continue
            found = interval_of(entry)
            word = "gains" if found.low > 0 else "loses" if found.high < 0 else "may differ by"
            size = f"{found.mean:+.3f}" if word == "may differ by" else f"{abs(found.mean):.3f}"
            lines.append(
                f"{later} against {earlier}: {word} {size} {noun} (95 % interval {found.low:+.3f} to {found.high:+.3f})"
            )
    return lines


def _tables(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every block of the held-out table: titles, rows of arms, rows of comparisons."""
    tables = []
    for columns in blocks(summary):
        head, *rows = body(summary, columns)
        arms = len(summary["arms"])
        tables.append({"columns": head[1:], "arms": rows[:arms], "pairs": rows[arms + 1 :]})
    return tables


def _pictures(folder: RunFolder, rows: Rows, arms: Sequence[str]) -> dict[str, Any]:
    """For the first held-out rows: what went in, what each arm made of it, and what it should be."""
    shown = [arm for arm in arms if arm != "draft"]
    found = []
    for index in range(min(PICTURES, len(rows))):
        files = [folder.evaluation / arm / f"{index:03d}.png" for arm in shown]
        if not all(file.exists() for file in files):
            break
        example = rows.example(index)
        inputs = [example.draft, *(reference.image for reference in example.references[:1])]
        results = [_enlarged(Image.open(file)) for file in files]
        target = [_enlarged(to_image(example.target))] if example.target is not None else []
        blank = [None] * (2 - len(inputs))  # a row without a reference
        cells = [*(_enlarged(to_image(image)) for image in inputs), *blank, *results, *target]
        found.append(
            {
                "id": example.id,
                "prompt": example.prompt,
                "cells": [cell and _data_url(cell, "image/png") for cell in cells],
            }
        )
    return {"columns": ["draft", "reference", *shown, "target"], "rows": found}


def _enlarged(image: Image.Image) -> bytes:
    zoom = ZOOM if max(image.size) <= 128 else 1
    content = io.BytesIO()
    image.convert("RGB").resize((zoom * image.width, zoom * image.height), Image.Resampling.NEAREST).save(
        content, "PNG", optimize=True
    )
    return content.getvalue()


def _samples(folder: RunFolder, label: str) -> list[dict[str, str]]:
    """The first and the last look at the same validation rows."""
    sheets = sorted(folder.samples.glob(f"{label}-[0-9]*.png")) if folder.samples.is_dir() else []
    chosen = sheets if len(sheets) < 2 else [sheets[0], sheets[-1]]
    return [
        {"name": f"step {int(sheet.stem.rpartition('-')[2])}", "image": _data_url(sheet.read_bytes(), "image/png")}
        for sheet in chosen
    ]


def _data_url(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
