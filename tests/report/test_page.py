"""The page of a run: whole, escaped, without a network, and small whatever the pictures are."""

import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from click.testing import CliRunner
from PIL import Image

from rlrefine.cli import cli
from rlrefine.evaluation.summary import summarize
from rlrefine.report.html import LARGEST, Album
from rlrefine.report.page import page
from rlrefine.report.pictures import timeline
from rlrefine.report.verdict import verdict
from tests.report.runs import EVIL, LOOKS, make_run


@pytest.fixture(scope="module")
def text(rows, tmp_path_factory):
    """The page of one run."""
    return page([make_run(tmp_path_factory.mktemp("text"), rows)])


class Page(HTMLParser):
    """Which elements a browser would see, and what is left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.images: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        given = dict(attrs)
        if tag == "img" and given["src"] != "data:,":  # the empty one of the enlargement
            self.images.append(given["src"] or "")
            assert given["alt"]
        if tag == "input":
            assert given["aria-label"]
        assert not [name for name in given if name.startswith("on")]
        if tag not in ("img", "meta", "br", "link", "input"):
            self.open.append(tag)

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_words_of_others_are_shown_and_never_run(text):
    shown = Page(text)
    assert shown.open == []
    assert EVIL not in text
    assert text.count("&lt;script&gt;") >= 2 + 2 + 2 + 2  # prompts of cards, timeline and groups; recipe, environment
    assert all(source.startswith("data:image/") for source in shown.images)


def test_the_only_script_is_the_one_that_the_page_allows(text):
    (script,) = Page(text).scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    assert "default-src 'none'" in policy[1]
    assert f"script-src 'sha256-{digest}'" in policy[1]
    assert not re.search(r"https?://", text.replace("http://www.w3.org", ""))


def test_every_part_is_there(text):
    for part in (
        "grpo against base", "grpo against sft", "1 alarm, below", "saturated pixels",
        "Before and after", "Held-out table", "grpo − wrong_reference", "over the steps of stage grpo",
        "Validation rows over time", "Groups of step 4", "<td>rollout</td><td>6.0</td>", "75 %",
        "reward pixel (masked_pixel)", "run.name=run-again", "0123abc",
    ):  # fmt: skip
        assert part in text, part


def test_a_slider_goes_from_the_draft_to_the_last_stage(text):
    assert text.count('type="range"') == 2  # of two held-out rows
    assert text.count("<span>draft</span>") == text.count("<span>grpo</span>") == 2
    assert 'aria-label="between draft and grpo of validation-00000"' in text


def test_the_timeline_cuts_each_result_out_of_its_sheet(finished):
    found = timeline(finished, "grpo", Album())
    assert [row["id"] for row in found] == ["validation-00000", "validation-00001"]
    for index, row in enumerate(found):
        assert [each["name"] for each in row["pictures"]] == ["draft", *(f"step {look}" for look in LOOKS), "target"]
        for look, each in zip(LOOKS, row["pictures"][1:], strict=False):
            picture = Image.open(io.BytesIO(base64.b64decode(each["image"].partition(",")[2])))
            assert picture.size == (64, 64)
            assert picture.getextrema() == ((10 * look + index,) * 2,) * 3


def test_a_sample_without_a_score_is_called_failed(text):
    # row 1: 0.5, none, 0.9: mean 0.7, and both best and widest (0.2 against 0.08)
    assert "best and widest" in text
    assert "mean reward 0.700, spread 0.200" in text
    assert "<figcaption>failed</figcaption>" in text


def test_a_run_that_goes_on_has_a_page_without_results(finished):
    finished.folder.summary.unlink()
    for file in (finished.folder.root / "evaluation").rglob("*.png"):
        file.unlink()
    text = page([replace(finished, heldout=None, validation=None)])
    assert "no held-out results yet (stage grpo, step 4)" in text
    assert "Held-out table" not in text
    assert "Before and after" not in text
    assert "over the steps of stage grpo" in text


def test_runs_are_compared_side_by_side(rows, tmp_path):
    runs = [make_run(tmp_path, rows, name, shift=shift) for name, shift in (("one", 0.0), ("two", 0.5))]
    text = page(runs)
    assert Page(text).open == []
    assert text.count("<summary>all runs, pooled</summary>") == 1
    assert "2 rows and 2 runs" in text
    for name in ("one", "two"):
        assert f"Groups of step 4 of {name}" in text
        assert f"run.name={name}-again" in text
    assert "reward of the rollouts: pixel over the steps" in text
    other = replace(runs[1].recipe, stages={"sft": runs[1].recipe.stages["sft"]})
    assert "pooled" not in page([runs[0], replace(runs[1], recipe=other)])
    both = summarize({"draft": {"psnr": [1.0, 2.0]}, "sft": {"psnr": [2.0, 3.0]}})
    (runs[1].folder.summary).write_text(json.dumps(both))
    (runs[1].folder.evaluation / "sft" / "table.json").write_text('{"psnr": [2.0, 3.0]}')
    apart = page([runs[0], replace(runs[1])])  # whose summary is read anew
    assert "pooled" not in apart
    assert "one: grpo against base" in apart


def test_large_pictures_are_made_smaller_and_left_out_where_they_do_not_fit(rows, tmp_path, monkeypatch):
    run = make_run(tmp_path, rows, side=1024)
    whole = page([run])
    assert len(whole) < LARGEST
    assert len(whole) < 2 * 2 * 500_000 + 1_500_000  # a photograph of 512 pixels of noise takes under 500,000
    monkeypatch.setattr(Album.__init__, "__defaults__", (200_000,))
    small = page([run])
    assert len(small) < 300_000
    assert Page(small).open == []
    assert "Some pictures or curves are left out" in small
    assert "left out" not in whole


def test_where_room_is_short_before_and_after_come_first(rows, tmp_path, monkeypatch):
    run = make_run(tmp_path, rows)
    monkeypatch.setattr(Album.__init__, "__defaults__", (220_000,))
    text = page([run])
    assert text.count('type="range"') == 2
    assert "Some pictures or curves are left out" in text


SURE = {"psnr_in_mask": [1.0, 2.0, 3.0] * 2, "reward_total": [0.0, 1.0, 2.0] * 2}
BETTER = {"psnr_in_mask": [3.0, 4.0, 5.0] * 2, "reward_total": [-1.0, 1.0, 3.0] * 2}
WORSE = {"psnr_in_mask": [2.0, 3.0, 4.0] * 2, "reward_total": [0.0, 1.0, 2.0] * 2}


def test_the_verdict_calls_open_what_is_open(finished):
    lines = verdict(summarize({"draft": SURE, "sft": BETTER, "grpo": WORSE}), finished.recipe)
    assert len(lines) == 2
    assert lines[0].startswith("grpo against draft: gains 1.000 dB inside the mask (+1.000 to +1.000)")
    assert lines[1].startswith("grpo against sft: loses 1.000 dB inside the mask")
    assert ", may differ by +0.000 of reward" in lines[1]


def test_the_verdict_calls_nothing_sure_of_five_rows(finished):
    five = [{name: values[:5] for name, values in table.items()} for table in (SURE, BETTER)]
    (line,) = verdict(summarize(dict(zip(("draft", "sft"), five, strict=True))), finished.recipe)
    assert line.startswith("sft against draft: may differ by +2.000 dB inside the mask (+2.000 to +2.000)")


def test_the_verdict_without_masks_speaks_of_psnr(finished):
    whole = [{"psnr": table["psnr_in_mask"]} for table in (SURE, BETTER)]
    (line,) = verdict(summarize(dict(zip(("draft", "sft"), whole, strict=True))), finished.recipe)
    assert line == "sft against draft: gains 2.000 dB (+2.000 to +2.000)"


def test_the_verdict_of_drafts_alone_says_so(finished):
    assert verdict(summarize({"draft": SURE, "base": WORSE}), finished.recipe) == [
        "no stage is finished; held-out results are of draft, base alone"
    ]


@pytest.mark.parametrize("quoted", [[], ["--json"]])
def test_the_command_writes_the_page_and_prints_the_table(finished, quoted, tmp_path):
    root, out = finished.folder.root, tmp_path / "page.html"
    done = CliRunner().invoke(cli, ["report", str(root), "-o", str(out), *quoted])
    assert done.exit_code == 0, done.output
    assert "Before and after" in out.read_text()
    assert f"page: {out}" in done.stderr
    if quoted:
        assert set(json.loads(done.stdout)["arms"]) == {"draft", "base", "wrong_reference", "sft", "grpo"}
    else:
        assert "grpo − sft" in done.stdout
        assert not finished.folder.report.exists()


def test_several_runs_have_one_page_beside_the_first(rows, tmp_path):
    roots = [str(make_run(tmp_path, rows, name).folder.root) for name in ("one", "two")]
    done = CliRunner().invoke(cli, ["report", *roots])
    assert done.exit_code == 0, done.output
    assert "seeds: 2" in done.stdout
    assert (tmp_path / "report.html").is_file()
    same = CliRunner().invoke(cli, ["report", roots[0], roots[0]])
    assert "runs of different names" in str(same.exception)
