import json
from html.parser import HTMLParser

import pytest
import torch
import yaml

from rlrefine.data.images import to_image
from rlrefine.data.loading import Rows
from rlrefine.evaluation.summary import summarize
from rlrefine.recipe.load import load_recipe
from rlrefine.report.curves import stage_curves
from rlrefine.report.page import verdict, write_report
from rlrefine.training.folder import RunFolder

EVIL = "<script>alert('&\"')</script>"


class Page(HTMLParser):
    """Which elements a browser would see, and what is left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.images: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs)["src"] or "")
            assert dict(attrs)["alt"]
        if tag not in ("img", "meta", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def finished(tmp_path, recipe_text):
    """The folder of a run that was given evil words wherever a user may write some."""
    from rlrefine.data.photo_rows import PhotoRows, write_rows

    rows = tmp_path / "rows"
    rows.mkdir()
    write_rows(PhotoRows("validation", (64, 64), lambda picture: picture * 0).rows(2), rows)
    lines = [json.loads(line) for line in (rows / "metadata.jsonl").read_text().splitlines()]
    (rows / "metadata.jsonl").write_text("".join(json.dumps(line | {"prompt": EVIL}) + "\n" for line in lines))

    root = tmp_path / "run"
    (root / "samples").mkdir(parents=True)
    recipe_file = tmp_path / "recipe.yaml"
    recipe_file.write_text(recipe_text)
    recipe = load_recipe(recipe_file)
    (root / "resolved.yaml").write_text(f"# {EVIL}\n")
    (root / "environment.json").write_text(json.dumps({"machine": EVIL}))
    tables = {
        arm: {"psnr_in_mask": [shift, shift + 1], "reward_total": [0.1 * shift, 0.2]}
        for shift, arm in enumerate(("draft", "base", "sft"))
    }
    (root / "summary.json").write_text(json.dumps(summarize(tables)))
    for arm in tables:
        (root / "evaluation" / arm).mkdir(parents=True)
        for index in range(2):
            to_image(torch.rand(3, 64, 64)).save(root / "evaluation" / arm / f"{index:03d}.png")
    records = [{"stage": "sft", "step": step, "loss": 1 / (step + 1), EVIL: 1.0} for step in range(4)]
    (root / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return recipe, RunFolder(root), Rows(rows, (64, 64))


@pytest.fixture
def recipe_text():
    return yaml.safe_dump(
        {
            "policy": {"name": "flux_kontext", "checkpoint": "tiny-kontext"},
            "data": {"train": "photos:train", "size": [64, 64]},
            "rewards": {},
            "stages": {"sft": {"objective": "sft", "steps": 4, "optimizer": {"lr": 1e-3}}},
        }
    )


def test_words_of_others_are_shown_and_never_run(finished):
    recipe, folder, rows = finished
    write_report(recipe, folder, rows)
    text = folder.report.read_text()
    page = Page(text)
    assert page.open == []
    assert "script" not in page.tags
    assert text.count("&lt;script&gt;") >= 4  # two prompts, the recipe, the environment
    assert all(source.startswith("data:image/") for source in page.images)
    assert len(page.images) >= 2 * 5  # draft, reference, base, sft, target of two rows


def test_the_verdict_calls_open_what_is_open():
    sure = {"psnr_in_mask": [1.0, 2.0, 3.0], "reward_total": [0.0, 1.0, 2.0]}
    better = {"psnr_in_mask": [3.0, 4.0, 5.0], "reward_total": [-1.0, 1.0, 3.0]}
    worse = {"psnr_in_mask": [2.0, 3.0, 4.0], "reward_total": [0.0, 1.0, 2.0]}
    lines = verdict(summarize({"draft": sure, "sft": better, "grpo": worse}))
    assert lines[0].startswith("sft against draft: gains 2.000 dB inside the mask")
    assert lines[1].startswith("sft against draft: may differ by +0.000 of reward")
    assert lines[2].startswith("grpo against sft: loses 1.000 dB inside the mask")


def test_curves_are_drawn_for_what_was_logged_and_are_the_same_each_time():
    records = [{"stage": "sft", "step": step, "loss": 0.5**step} for step in range(5)]
    curves = stage_curves(records)
    assert len(curves) == 1
    assert curves[0].lstrip().startswith("<?xml") or curves[0].lstrip().startswith("<svg")
    assert curves == stage_curves(records)
