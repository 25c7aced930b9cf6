"""``rlrefine eval`` of folders from the command line to its tables, with values that can be told by hand."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rlrefine.cli import main
from rlrefine.evaluation.benchmark import Benchmark, Measure, Published
from rlrefine.evaluation.benchmarks import BENCHMARKS
from rlrefine.evaluation.benchmarks.spie import SPIE
from tests.evaluation.conftest import SIDE, grey


def run(*arguments):
    try:
        main(["eval", *map(str, arguments)])
    except SystemExit as error:
        return int(error.code or 0)
    return 0


@pytest.fixture
def found(rows, capfd):
    """Run it, and read its JSON."""

    def look(*arguments, data=rows):
        capfd.readouterr()  # what was said while networks were made
        assert run(*arguments, *(["--data", data] if data else []), "--json") == 0
        return json.loads(capfd.readouterr().out)

    return look


def test_values_by_hand(found, edited):
    said = found(edited, "--benchmark", "spie", "--measure", "l2_outside", "--measure", "structure")
    assert (said["benchmark"], said["rows"], list(said["subjects"])) == ("spie", 4, ["draft", "edited"])
    outside = said["measures"]["l2_outside"]
    # a fifth brighter everywhere: (51/255)² = 0.04 outside the mask, of every row; the draft itself has none
    assert outside["values"]["edited"] == {"mean": pytest.approx(0.04), "low": pytest.approx(0.04),
                                           "high": pytest.approx(0.04), "n": 4}  # fmt: skip
    assert outside["values"]["draft"]["mean"] == 0
    assert (outside["better"], outside["differences"]) == ("lower", {})
    assert said["measures"]["structure"]["values"]["edited"]["mean"] == pytest.approx(1)  # no gradient in either


def test_without_a_benchmark_it_is_fidelity_to_what_the_rows_have(found, edited, rows):
    said = found(edited)
    # −10·log₁₀ 0.04 = 13.98 dB; no row has a target, so nothing is said of one
    assert set(said["measures"]) == {"draft_psnr_outside_mask", "draft_ssim"}
    assert said["measures"]["draft_psnr_outside_mask"]["values"]["edited"]["mean"] == pytest.approx(13.979, abs=1e-3)
    assert said["measures"]["draft_psnr_outside_mask"]["values"]["draft"]["mean"] == 60


def test_folders_are_compared_row_by_row_with_the_first(found, edited, tmp_path, capfd, rows):
    better = tmp_path / "better"
    better.mkdir()
    for number in range(4):  # by a tenth, and by nothing in the last row
        grey(51 * number + (26 if number < 3 else 0)).save(better / f"row-{number}.png")
    said = found(edited, better, "--benchmark", "spie", "--measure", "l2_outside")
    difference = said["measures"]["l2_outside"]["differences"]["better − edited"]
    # 3 of 4 rows: (26/255)² − 0.04, the last −0.04
    assert difference["mean"] == pytest.approx(0.75 * (26 / 255) ** 2 - 0.04, abs=1e-6)
    assert difference["high"] < 0
    assert run(edited, better, "--data", rows, "--benchmark", "spie", "--measure", "l2_outside", "--markdown") == 0
    page = capfd.readouterr().out
    assert "| measure | draft | edited | better | better − edited |" in page
    assert "] better |" in page  # an error that is lower


def test_the_same_pictures_differ_by_exactly_nothing(found, edited, tmp_path):
    again = tmp_path / "again"
    again.symlink_to(edited)
    said = found(edited, again / ".", "--benchmark", "spie", "--measure", "texture")
    (difference,) = said["measures"]["texture"]["differences"].values()
    assert (difference["mean"], difference["low"], difference["high"]) == (0, 0, 0)


def weights(network_folder, dreamsim_folder, clip_folder):
    """All neural measures of SPIE with random weights of their real classes."""
    dreamsim, clip, dinov2 = dreamsim_folder("dino_vitb16_patch"), clip_folder, network_folder("dinov2")
    places = {"depth_error": network_folder("depth_anything")}
    for side in ("style", "input"):
        places |= {f"{side}_dreamsim": dreamsim, f"{side}_clip": clip, f"{side}_dinov2": dinov2}
    places |= dict.fromkeys(("text", "direction", "pick_score"), clip)
    return [f"{name}.checkpoint={place}" for name, place in places.items()]


@pytest.fixture
def noise(tmp_path):
    """Edited pictures without any order."""
    place, rng = tmp_path / "noise", np.random.default_rng(1)
    place.mkdir()
    for number in range(4):
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(place / f"row-{number}.png")
    return place


def test_all_of_spie_on_real_classes(found, noise, network_folder, dreamsim_folder, clip_folder):
    said = found(noise, "--benchmark", "spie", *weights(network_folder, dreamsim_folder, clip_folder), "--batch", 3)
    measures = said["measures"]
    assert list(measures) == list(SPIE.measures)
    absent = {name: entry["state"] for name, entry in measures.items() if entry["state"] != "measured"}
    assert absent == {"image_reward": "not installed", "hpsv2": "not installed"}
    for name, entry in measures.items():
        if name not in absent:
            assert entry["values"]["noise"]["n"] == 4, name
            assert np.isfinite(entry["values"]["noise"]["mean"])
    # the drafts are as the drafts are, and changed in no direction
    assert measures["depth_error"]["values"]["draft"]["mean"] == 0
    assert measures["depth_error"]["values"]["noise"]["mean"] > 0
    for name in ("input_dreamsim", "input_clip", "input_dinov2"):
        assert measures[name]["values"]["draft"]["mean"] > measures[name]["values"]["noise"]["mean"]
    assert (measures["direction"]["values"]["draft"], measures["direction"]["not_applicable"]) == (None, {"draft": 4})
    assert measures["depth_error"]["published"] == [
        {"method": "SPIE", "measure": "depth_error", "value": 20.76, "note": "unit not given"},
        {"method": "HIVE", "measure": "depth_error", "value": 28.5, "note": "unit not given"},
    ]
    assert "2504.12833" in said["published"]["source"]


def test_what_cannot_be_measured_stands_in_the_table_with_its_reason(rows, edited, capfd, monkeypatch, tmp_path):
    monkeypatch.setenv("RLREFINE_CACHE", str(tmp_path / "cache"))
    assert run(edited, "--data", rows, "--benchmark", "spie") == 0
    shown = capfd.readouterr().out
    lines = {line.split("  ")[0]: line for line in shown.splitlines()}
    assert "no weights" in lines["depth error, the network's units ↓"]
    assert "SPIE 20.76, HIVE 28.5" in lines["depth error, the network's units ↓"]
    assert "not installed" in lines["ImageReward v1.0 ↑"]
    assert "not installed" in lines["HPSv2.1 ↑"]
    assert "theirs, other data" in shown
    assert "Depth-Anything-V2-Large-hf' is no folder here" in shown
    assert "CC-BY-NC" in shown
    assert "0.0400 [0.0400, 0.0400]" in lines["squared error outside the mask ↓"]


def test_rows_without_a_mask_have_no_value_of_what_needs_one(rows, edited, found):
    lines = [json.loads(line) for line in (rows / "metadata.jsonl").read_text().splitlines()]
    bare = [{key: value for key, value in line.items() if key != "mask_file_name"} for line in lines]
    (rows / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in bare))
    said = found(edited, "--benchmark", "spie")
    assert said["measures"]["l2_outside"]["state"] == "not in these rows"
    assert "mask_file_name in every row, which 4 of 4 lack" in said["measures"]["l2_outside"]["reason"]
    assert said["measures"]["structure"]["state"] == "measured"


def own_rows(rows, edited, **change):
    """The edited pictures as a folder that brings its own rows."""
    lines = [json.loads(line) for line in (rows / "metadata.jsonl").read_text().splitlines()]
    for name in ("style.png", "mask.png", *(f"{number}-draft.png" for number in range(4))):
        (edited / name).write_bytes((rows / name).read_bytes())
    for number, line in enumerate(lines):
        (edited / f"row-{number}.png").replace(edited / f"out-{number}.png")
        line["edited_file_name"] = f"out-{number}.png"
    lines[1] |= change
    (edited / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_folder_may_bring_its_own_rows(rows, edited, found):
    by_id = found(edited)
    own_rows(rows, edited)
    said = found(edited, data=None)
    assert said["measures"] == by_id["measures"]
    assert found(edited)["measures"] == by_id["measures"]  # and be looked at by others' rows


def test_tables_and_rows_are_written(rows, edited, tmp_path, capfd, found):
    out = tmp_path / "results" / "spie"
    said = found(edited, "--benchmark", "spie", "-o", out)
    assert json.loads((out / "summary.json").read_text()) == said
    assert (out / "table.md").read_text().startswith(f"SPIE: 4 rows of {rows}")
    lines = list(csv.DictReader((out / "rows.csv").open()))
    assert [(line["row"], line["subject"]) for line in lines[:3]] == [
        ("row-0", "draft"), ("row-0", "edited"), ("row-1", "draft"),
    ]  # fmt: skip
    colours = [float(line["colour"]) for line in lines if line["subject"] == "edited"]
    assert said["measures"]["colour"]["values"]["edited"]["mean"] == pytest.approx(np.mean(colours))


def test_rows_are_divided_by_a_column(found, edited, rows, capfd):
    said = found(edited, "--by", "place", "--by", "references")
    town = said["by"]["place"]["town"]
    assert (town["rows"], said["by"]["place"]["wood"]["rows"]) == (2, 2)
    assert town["measures"]["draft_psnr_outside_mask"]["edited"]["n"] == 2
    assert list(said["by"]["references"]) == ["1"]
    assert run(edited, "--data", rows, "--by", "place") == 0
    assert ["town", "edited", "2", "13.98"] in [line.split()[:4] for line in capfd.readouterr().out.splitlines()]


def test_a_reward_may_be_measured_too(found, edited):
    said = found(edited, "--reward", "masked_pixel:against=drafts,where=outside")
    assert said["measures"]["reward_masked_pixel"]["values"]["edited"]["mean"] == pytest.approx(-0.04)


def test_another_benchmark_is_one_record(found, edited, monkeypatch):
    """Six dimensions, tables by category and by the number of references, and what others report: no code at all."""
    outside = SPIE.measures["l2_outside"]
    dimensions = dict.fromkeys(("subject", "pose", "background", "style", "lighting"), outside)
    judge = Measure(label="judge", better="higher", place="nowhere:Judge", packages=("no_such_package",))
    theirs = (Published(method="untuned", measure="judge", value=4.97),)
    benchmark = Benchmark(
        name="omni", title="Omni", measures=dimensions | {"judge": judge}, published=theirs, by=("place", "references")
    )
    monkeypatch.setitem(BENCHMARKS, "omni", benchmark)
    said = found(edited, "--benchmark", "omni")
    assert list(said["measures"]) == [*dimensions, "judge"]
    assert (said["measures"]["judge"]["state"], said["measures"]["judge"]["published"][0]["value"]) == (
        "not installed", 4.97,
    )  # fmt: skip
    assert set(said["by"]) == {"place", "references"}


def test_a_measure_that_fails_is_told_and_ends_with_code_4(rows, edited, capfd, clip_folder):
    lines = [json.loads(line) for line in (rows / "metadata.jsonl").read_text().splitlines()]
    lines[2]["prompt"] = " "
    (rows / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    change = (f"text.checkpoint={clip_folder}", "text.text={prompt}")
    assert run(edited, "--data", rows, "--benchmark", "spie", "--measure", "text", *change) == 4
    told = capfd.readouterr()
    assert "picture to text, CLIP failed for rows: 1 of draft, 1 of edited" in told.out
    assert "text: draft: row row-2 has no value" in told.err


def break_nothing(rows, edited):
    pass


def break_missing(rows, edited):
    (edited / "row-2.png").unlink()


def break_size(rows, edited):
    grey(9, side=16).save(edited / "row-2.png")


def break_picture(rows, edited):
    whole = (edited / "row-2.png").read_bytes()
    (edited / "row-2.png").write_bytes(whole[: len(whole) // 2])


def break_twice(rows, edited):
    grey(9).save(edited / "row-2.jpg")


def break_own(rows, edited):
    own_rows(rows, edited, edited_file_name="../rows/0-draft.png")


def break_own_missing(rows, edited):
    own_rows(rows, edited, edited_file_name="gone.png")


def break_other_rows(rows, edited):
    own_rows(rows, edited, id="somebody")


WRONG = [
    (
        break_missing,
        (),
        3,
        "has no image of 1 of 4 rows; expected a file named after the id of each row, such as row-2",
    ),
    (break_size, (), 3, "row row-2: expected draft and the image to score of one size, found draft 32 × 32"),
    (break_picture, (), 3, "cannot read"),
    (break_twice, (), 3, "has row-2.jpg and row-2.png, expected one image of row row-2"),
    (break_own, (), 3, "row row-1: edited_file_name: expected a file inside the folder, found '../rows/0-draft.png'"),
    (break_own_missing, (), 3, "row row-1: edited_file_name: no file 'gone.png'"),
    (break_other_rows, (), 3, "has no row row-1, one of 1 that are compared"),
    (break_nothing, ("--benchmark", "spiee"), 2, "no such benchmark; did you mean 'spie'?"),
    (break_nothing, ("--benchmark", "spie", "--measure", "depth"), 2, "no such measure; did you mean 'depth_error'?"),
    (break_nothing, ("--benchmark", "spie", "--measure", "image_reward"), 4, "image_reward: not installed"),
    (break_nothing, ("--benchmark", "spie", "text.checkpint=x"), 2, "did you mean 'checkpoint'?"),
    (break_nothing, ("--benchmark", "spie", "txt.checkpoint=x"), 2, "txt is not measured; did you mean 'text'?"),
    (break_nothing, ("--benchmark", "spie", "text.batch=many"), 2, "expected int such as 16, found many"),
    (break_nothing, ("--benchmark", "spie", "checkpoint=x"), 2, "expected MEASURE.KEY=VALUE"),
    (break_nothing, ("evaluation.steps=3",), 2, "only the evaluation of a run can be changed, and there is none"),
    (break_nothing, ("--reward", "masked_pixl"), 2, "did you mean 'masked_pixel'"),
    (break_nothing, ("--reward", "masked_pixel"), 4, "needs target_file_name in every row, which 4 of 4 lack"),
    (break_nothing, ("nowhere",), 2, "nowhere: expected a folder of edited pictures, or a run; nowhere holds no run"),
]


@pytest.mark.parametrize(("broken", "arguments", "code", "message"), WRONG)
def test_a_mistake_is_one_error(broken, arguments, code, message, rows, edited, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    broken(rows, edited)
    assert run(edited, *arguments, "--data", rows) == code
    told = capfd.readouterr()
    assert message in " ".join(told.err.split())
    assert "Traceback" not in told.err
    assert told.out == ""


def test_a_folder_without_rows_says_where_they_could_come_from(edited, capfd):
    assert run(edited) == 2
    assert (
        "has no metadata.jsonl; give --data with the rows that its pictures are named after" in capfd.readouterr().err
    )
    assert run(Path("nowhere")) == 2
