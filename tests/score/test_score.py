"""``rlrefine score`` from the command line to its tables: nothing is lost, changed or made up."""

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rlrefine.cli import main
from rlrefine.score.request import make_request

BY_HAND = [-0.64, -0.36, -0.16, -0.04]  # −(0.8 − g)² for drafts of 0, 0.2, 0.4, 0.6


def run(*arguments):
    try:
        main(["score", *map(str, arguments)])
    except SystemExit as error:
        return int(error.code or 0)
    return 0


@pytest.fixture
def found(rows, capfd):
    """Run it, and read its JSON; gives the exit code, too."""

    def look(*arguments, data=rows):
        code = run(*arguments, "--data", data, "--json")
        return code, json.loads(capfd.readouterr().out)

    return look


def named(*names):
    return [word for name in names for word in ("--reward", name)]


def test_scores_of_drafts_by_hand(found):
    code, said = found(*named("masked_pixel", "masked_pixel:norm=l1"))
    assert code == 0
    assert (said["rows"], said["images"], said["size"]) == (4, "drafts", None)
    squared, absolute = said["rewards"]["masked_pixel"], said["rewards"]["masked_pixel_2"]
    assert squared["scores"]["mean"] == pytest.approx(-0.3)  # −(0.64 + 0.36 + 0.16 + 0.04) / 4
    assert absolute["scores"]["mean"] == pytest.approx(-0.5)  # −(0.8 + 0.6 + 0.4 + 0.2) / 4
    assert (squared["scores"]["min"], squared["scores"]["max"]) == (pytest.approx(-0.64), pytest.approx(-0.04))
    assert squared["range"] == [-1.0, 0.0]
    assert squared["needs"] == ["masks", "targets"]
    assert absolute["settings"] == {"norm": "l1", "where": "inside", "feather": 0.0, "against": "targets"}
    (pair,) = said["correlations"]
    assert (pair["n"], pair["spearman"]) == (4, 1.0)
    assert pair["pearson"] == pytest.approx(np.corrcoef(BY_HAND, [-0.8, -0.6, -0.4, -0.2])[0, 1])
    assert squared["targets_over_drafts"] == {
        "rows": 4, "higher": 1.0, "equal": 0.0, "difference": pytest.approx(0.3)
    }  # fmt: skip
    assert squared["images_per_cpu_second"] > 0


def test_targets_are_perfect_and_not_above_themselves(found):
    _, said = found(*named("masked_pixel"), "--images", "targets")
    assert said["rewards"]["masked_pixel"]["scores"]["min"] == 0
    assert said["rewards"]["masked_pixel"]["targets_over_drafts"]["higher"] == 1.0


def test_the_csv_says_what_the_json_says(found, tmp_path, known):
    table = tmp_path / "scores.csv"
    code, said = found(*named("masked_pixel", "posed", "fragile"), "--csv", table)
    assert code == 4
    lines = list(csv.DictReader(table.open()))
    assert [line["row"] for line in lines] == ["grey-0", "grey-1", "grey-2", "grey-3"]
    assert [float(line["masked_pixel"]) for line in lines] == pytest.approx(BY_HAND)
    for label, entry in said["rewards"].items():
        scores = [float(line[label]) for line in lines if line[label]]
        assert len(scores) == entry["scored"]
        assert entry["scores"]["mean"] == pytest.approx(np.mean(scores), rel=1e-12)
        assert entry["scores"]["std"] == pytest.approx(np.std(scores), rel=1e-9)
        assert entry["scores"]["percentiles"]["25"] == pytest.approx(np.percentile(scores, 25), rel=1e-12)
        assert sum(entry["scores"]["counts"]) == len(scores)
        without = [line[f"{label}_without"] for line in lines]
        assert sum(text == "does not apply" for text in without) == entry["not_applicable"]
        assert sum(text.startswith("failed") for text in without) == entry["failed"]
        assert [not text for text in without] == [bool(line[label]) for line in lines]
    assert (said["rewards"]["posed"]["not_applicable_share"], said["rewards"]["posed"]["scored"]) == (0.5, 2)


def test_a_failing_reward_is_told_and_never_a_number(rows, known, capfd, tmp_path):
    table = tmp_path / "scores.csv"
    assert run(*named("fragile", "brightness"), "--data", rows, "--csv", table) == 4
    told = capfd.readouterr()
    assert "fragile: row grey-0 has no score (nan): scored nan" in told.err
    assert "1 more of fragile failed" in told.err
    assert "warning: fragile failed for 2 of 4 images (nan, raised)" in told.out
    assert "50.0%" in told.out
    lines = list(csv.DictReader(table.open()))
    assert [line["fragile"] != "" for line in lines] == [False, False, True, True]
    assert lines[1]["fragile_without"] == "failed (raised): Fragile raised OSError: too dark to read"
    # the control: the other reward scores what is black, and that is a zero that was measured
    assert float(lines[0]["brightness"]) == 0.0


def test_failures_in_json_name_their_rows(found, known):
    code, said = found(*named("fragile"))
    fragile = said["rewards"]["fragile"]
    assert (code, fragile["failed"], fragile["failed_share"], fragile["scored"]) == (4, 2, 0.5, 2)
    assert fragile["failure_kinds"] == {"nan": 1, "raised": 1}
    assert [failure["where"] for failure in fragile["failures"]] == ["row grey-0", "row grey-1"]
    assert fragile["scores"]["mean"] == pytest.approx(0.5)  # (0.4 + 0.6) / 2


def test_what_a_judge_answers_is_a_score_or_a_failure(rows, known, tmp_path, found):
    """T-46: words that are no number, a number out of range, and an instruction inside the picture, which is obeyed."""
    told = np.full((16, 16, 3), 102, dtype=np.uint8)
    told[0, ::2], told[0, 1::2] = 255, 0  # stands for writing
    Image.fromarray(told).save(rows / "1-draft.png")
    table = tmp_path / "scores.csv"
    code, said = found(*named("judge"), "--csv", table)
    lines = {line["row"]: line for line in csv.DictReader(table.open())}
    assert (code, said["rewards"]["judge"]["failure_kinds"]) == (4, {"raised": 1, "range": 1})
    assert "could not convert string to float: 'I cannot rate people'" in lines["grey-0"]["judge_without"]
    assert lines["grey-3"]["judge_without"].startswith("failed (range): scored 11.0")
    assert (lines["grey-1"]["judge"], lines["grey-2"]["judge"]) == ("10.0", "4.0")
    assert said["rewards"]["judge"]["scores"]["max"] == 10.0


@pytest.mark.parametrize(("name", "again", "rearranged"), [("noise", True, True), ("batched", False, True)])
def test_a_reward_that_says_otherwise_a_second_time_is_noticed(found, known, name, again, rearranged):
    """T-49: the same images twice, in batches of one, in another order."""
    _, said = found(*named(name, "brightness"), "--batch", 4)
    noticed = said["rewards"][name]["determinism"]
    assert noticed["deterministic"] is False
    assert (noticed["again"] > 1e-3, noticed["rearranged"] > 1e-3) == (again, rearranged)
    steady = said["rewards"]["brightness"]["determinism"]
    assert (steady["rows"], steady["deterministic"], steady["unsteady"]) == (4, True, 0)
    assert max(steady["again"], steady["rearranged"]) <= 1e-5


def test_batches_of_one_are_checked_against_larger_ones(found, known):
    _, said = found(*named("batched"), "--batch", 1)
    assert said["rewards"]["batched"]["determinism"]["rearranged"] > 1e-3


def test_a_reward_that_likes_drafts_better_is_named(rows, known, capfd):
    assert run(*named("darkness", "brightness"), "--data", rows) == 0
    text = capfd.readouterr().out
    assert "warning: darkness likes drafts better than targets" in text
    assert "warning: brightness likes" not in text
    assert "warning: darkness and brightness order the images almost alike (-1.00)" in text
    assert "100% of 4" in text
    assert "█" in text


def test_without_checks_nothing_is_scored_twice(found, known):
    _, said = found(*named("noise"), "--no-checks")
    assert (said["rewards"]["noise"]["determinism"], said["rewards"]["noise"]["targets_over_drafts"]) == (None, None)


def test_the_batch_changes_nothing(found):
    means = [
        found(*named("patch_perceptual:patch=8"), "--batch", batch)[1]["rewards"]["patch_perceptual"]["scores"]["mean"]
        for batch in (1, 3, 8)
    ]
    assert means == pytest.approx([means[0]] * 3, abs=1e-6)


def test_a_folder_is_scored_by_the_ids_of_its_files(found, folder, known):
    Image.new("RGB", (16, 16), (255, 255, 255)).save(folder / "grey-2.png")
    Image.new("RGB", (4, 4)).save(folder / "overview.png")
    code, said = found(*named("brightness"), "--images", folder)
    assert (code, said["images"]) == (0, str(folder))
    assert said["rewards"]["brightness"]["scores"]["max"] == 1.0
    assert said["images_of_no_row"] == [str(folder / "overview.png")]


def test_images_of_other_sizes_keep_their_pixels(found, rows, folder, known):
    for part in ("draft", "target", "mask"):
        Image.new("L", (24, 20), 255).save(rows / f"1-{part}.png")
    Image.new("RGB", (24, 20), (51, 51, 51)).save(folder / "grey-1.png")
    code, said = found(*named("brightness", "masked_pixel"), "--images", folder)
    assert code == 0
    # no pixel of white noise beside it: 0.2 exactly, and (1 − 0.2)² from a white target
    assert said["rewards"]["brightness"]["scores"]["min"] == pytest.approx(0.2)
    assert said["rewards"]["masked_pixel"]["scores"]["min"] == pytest.approx(-0.64)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda rows, folder: truncate(rows / "3-target.png"), "3-target.png"),
        (lambda rows, folder: truncate(folder / "grey-3.png"), "grey-3.png"),
        (lambda rows, folder: (folder / "grey-1.png").unlink(), "has no image of 1 of 4 rows"),
        (lambda rows, folder: Image.new("RGB", (16, 16)).save(folder / "grey-1.jpg"), "grey-1.jpg and grey-1.png"),
        (lambda rows, folder: Image.new("RGB", (8, 8)).save(folder / "grey-1.png"), "found draft 16 × 16"),
    ],
)
def test_what_cannot_be_read_is_one_error_before_anything_is_scored(
    spoil, message, rows, folder, known, monkeypatch, tmp_path, capfd
):
    from tests.score.conftest import Brightness

    calls = []
    monkeypatch.setattr(Brightness, "__call__", lambda self, inputs: calls.append(inputs))
    spoil(rows, folder)
    table = tmp_path / "scores.csv"
    assert run(*named("brightness"), "--data", rows, "--images", folder, "--csv", table) == 3
    told = capfd.readouterr().err
    assert message in told
    assert "Traceback" not in told
    assert not calls
    assert not table.exists()


def truncate(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_a_missing_column_is_named_with_the_rewards_that_need_it(rows, rewrite, capfd):
    for number in range(4):
        rewrite(number, mask_file_name=...)
    assert run(*named("masked_pixel", "patch_perceptual:patch=8"), "--data", rows) == 3
    told = capfd.readouterr().err
    assert "reward masked_pixel needs masks: expected mask_file_name in every row, not in row grey-0" in told
    assert "patch_perceptual" not in told
    assert run(*named("patch_perceptual:patch=8"), "--data", rows) == 0


def test_a_reward_that_applies_nowhere_says_so(rows, rewrite, known, capfd):
    for number in range(4):
        rewrite(number, pose=None)
    assert run(*named("posed"), "--data", rows) == 0
    assert "warning: posed applies to none of the images" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no reward to score with"),
        (["--reward", "masked_pixel"], "nothing to score"),
        (["--reward", "masked_pixle", "--data", "x"], "did you mean 'masked_pixel'"),
        (["--reward", "masked_pixel:nrom=l1", "--data", "x"], "did you mean 'norm'"),
        (["--reward", "masked_pixel:norm=l3", "--data", "x"], "expected one of l1, l2, charbonnier"),
        (["--reward", "masked_pixel:l1", "--data", "x"], "expected key=value"),
        (["omnirefiner_tinny"], "did you mean 'omnirefiner_tiny'"),
        (["--reward", "masked_pixel", "--data", "nowhere"], "nowhere is not a folder"),
        (["--reward", "masked_pixel", "--data", "photos:test"], "known: photos:train"),
        (["omnirefiner_tiny", "--csv", "nowhere/scores.csv"], "its folder does not exist"),
    ],
)
def test_a_mistake_gets_one_message(arguments, message, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) in (2, 3)
    told = capfd.readouterr().err
    assert message in told
    assert "Traceback" not in told
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_or_changed(rows, folder, tmp_path, known):
    def state():
        files = sorted([*rows.rglob("*"), *folder.rglob("*")])
        return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    before, table = state(), tmp_path / "scores.csv"
    assert run(*named("brightness"), "--data", rows, "--images", folder, "--csv", table) == 0
    written = table.read_bytes()
    assert run(*named("darkness"), "--data", rows, "--images", folder, "--csv", table) == 2
    assert table.read_bytes() == written
    assert state() == before


def test_a_recipe_brings_rewards_rows_and_size(tmp_path):
    request = make_request(["omnirefiner_tiny", "rewards.pixel.norm=l1"], ["masked_pixel:where=outside"])
    assert request.data == "photos:validation"
    assert request.size == (64, 64)
    assert list(request.rewards)[-1] == "masked_pixel"
    assert request.rewards["pixel"].settings.norm == "l1"
    assert make_request(["omnirefiner_tiny"], data="photos:heldout", size=(32, 32)).size == (32, 32)
    elsewhere = make_request(["omnirefiner", "rewards.pixel.norm=l1"], data="rows")  # whose own rows need not be there
    assert elsewhere.data == "rows"
    assert make_request(["rewards.masked_pixel.norm=l1"], ["masked_pixel"], "rows").size is None
    assert Path(make_request([], ["masked_pixel"], "photos:train").data).name == "photos:train"


def test_only_built_in_rows_have_a_usual_size():
    assert make_request([], ["masked_pixel"], "moon-rock:train").size == (64, 64)
    for folder in ("furniture", "photos-of-mine", "brick"):
        assert make_request([], ["masked_pixel"], folder).size is None


def test_rows_are_completed_as_the_recipe_says(rows, rewrite, tmp_path, capfd):
    """Rows without prompts that a recipe words, and two references of which it keeps one; what a gate keeps of them are
    the rows as they were.
    """
    shown = {"reference_file_names": ["0-draft.png", "0-target.png"], "reference_roles": ["style", "style"]}
    for number in range(4):
        rewrite(number, **shown, prompt=...)
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("base: spie_tiny\ndata: {size: [16, 16], prompts: {templates: ['cover it with {style}']}}\n")
    assert run(recipe, "--data", rows, "--keep", tmp_path / "kept", "--at-least", "structure=-2", "--json") == 0
    colour = json.loads(capfd.readouterr().out)["rewards"]["colour"]
    # of one grey each way: the draft of row 0 in the style image of row 0, or the target of 0.8: 1 − |g − s|
    choices = make_request([str(recipe)], data=str(rows)).choices
    lines = [json.loads(line) for line in (rows / "metadata.jsonl").read_text().splitlines()]
    styles = [(0.0, 0.8)[choices.kept(line, number)[0]] for number, line in enumerate(lines)]
    expected = [1 - abs(level - style) for level, style in zip((0.0, 0.2, 0.4, 0.6), styles, strict=True)]
    assert set(styles) == {0.0, 0.8}
    assert colour["scores"]["mean"] == pytest.approx(sum(expected) / 4, abs=1e-6)
    assert (tmp_path / "kept" / "metadata.jsonl").read_text() == (rows / "metadata.jsonl").read_text()
