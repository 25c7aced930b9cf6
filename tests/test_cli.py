"""What a user types, and what comes back; nothing here trains."""

import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from rlrefine.cli import cli, main


def code_of(arguments) -> int:
    try:
        main(arguments)
    except SystemExit as error:
        return int(error.code or 0)
    return 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "no command 'trian'; did you mean 'train'?"),
        (["train"], "Missing argument 'RECIPE'"),
        (["validate", "omnirefiner_tinny"], "did you mean 'omnirefiner_tiny'"),
        (["validate", "omnirefiner_tiny", "stages.grpo.step=3"], "did you mean 'steps'"),
        (["validate", "omnirefiner_tiny", "steps"], "key=value"),
        (
            ["validate", "omnirefiner_tiny", "--run.seed=1"],
            "No such option '--run.seed'. Keys of a recipe stand without",
        ),
        (["validate", "omnirefiner_tiny", "stage.sft.steps=1"], "command line (stage.sft.steps=1): stage: found an"),
        (["resume", "nowhere"], "holds no run"),
        (["train", "omnirefiner_tiny", "--stage", "stf"], "did you mean 'sft'?"),
        (["train", "omnirefiner_tiny", "rewards.more.name=masked_pixle"], "did you mean 'masked_pixel'?"),
        (["train", "omnirefiner_tiny", "stages.grpo.objective=groo"], "did you mean 'grpo'?"),
        (["train", "omnirefiner_tiny", "policy.name=flux_kontex"], "did you mean 'flux_kontext'?"),
        (["train", "omnirefiner_tiny", "engine.name=dpp"], "did you mean 'ddp'?"),
        (["score", "--reward", "masked_pixle", "--data", "photos:heldout"], "did you mean 'masked_pixel'?"),
        (["rewards", "show", "masked_pixle"], "did you mean 'masked_pixel'?"),
        (["eval", "nowhere", "--benchmark", "spei"], "did you mean 'spie'?"),
        (["ls", "recipies"], "did you mean 'recipes'?"),
        (["plan", "omnirefiner_tiny", "--jsno"], "Did you mean '--json'?"),
        (["show", "omnirefiner_tiny", "run.seed=1"], "--resolved shows what it comes to"),
        (["init", "my"], "ends in .yaml"),
        (["init", "my.yaml", "--base", "omnirefinr_tiny"], "did you mean 'omnirefiner_tiny'"),
        (["report", "nowhere"], "nowhere holds no run"),
        (["data", "check", "nowhere"], "nowhere"),
        (["export", "nowhere", "--format", "diffusers"], "nowhere holds no run"),
        (["export", "nowhere", "--format", "kohya"], "'kohya' is not one of 'diffusers', 'peft'"),
        (["refine", "nowhere", "a.png", "b.png", "-o", "c.png"], "nowhere holds no run"),
        (["data", "build", "photo:train", "out"], "photos:train"),
        (["show", "omnirefinr_tiny"], "did you mean 'omnirefiner_tiny'"),
        (["ablate", "omnirefiner_reward"], "did you mean 'omnirefiner_rewards'"),
        (["ablate", "omnirefiner_rewards", "--seeds", "one"], "expected whole numbers such as 0,1,2, found 'one'"),
        (["ablate", "omnirefiner_rewards", "--seeds", "1,1"], "seeds: found [1, 1], expected different numbers"),
    ],
)
def test_a_mistake_gets_one_message_and_no_traceback(arguments, message, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert code_of(arguments) in (2, 3)
    output = capfd.readouterr().err
    assert message in output
    assert "Traceback" not in output
    assert list(tmp_path.iterdir()) == []


def test_a_reward_without_its_weights_stops_a_run_before_it_has_a_folder(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RLREFINE_CACHE", str(tmp_path / "cache"))
    arguments = ["omnirefiner_tiny", "rewards.alike.name=patch_dreamsim", "rewards.alike.patch=32"]
    assert code_of(["validate", *arguments]) == 0  # a recipe is right wherever its weights are
    assert code_of(["train", *arguments]) == 4
    output = capfd.readouterr().err
    assert "rewards.alike: DreamSim ensemble needs dino_vitb16_pretrain.pth" in output
    assert "Traceback" not in output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["resume", "export --format peft", "refine d.png r.png -o out.png", "report"])
def test_a_run_of_a_like_name_is_suggested(command, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "first").mkdir(parents=True)
    (tmp_path / "runs" / "first" / "resolved.yaml").touch()
    name, *rest = command.split()
    for typo in ("runs/frist", "first"):
        assert code_of([name, typo, *rest]) == 2
        assert f"{typo} holds no run: resolved.yaml is missing; did you mean 'runs/first'?" in capfd.readouterr().err


def test_a_recipe_is_begun_and_what_is_next_is_said(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert code_of(["init", "my.yaml", "stages.grpo.steps=4"]) == 0
    said = capfd.readouterr().out
    assert said.startswith("my.yaml lies over omnirefiner_tiny, and is valid\nnext:\n")
    assert code_of(["validate", "my.yaml"]) == 0
    assert "4 steps of 8 rows" in capfd.readouterr().out
    before = (tmp_path / "my.yaml").read_text()
    assert code_of(["init", "my.yaml"]) == 2
    assert "my.yaml exists" in capfd.readouterr().err
    assert (tmp_path / "my.yaml").read_text() == before
    assert code_of(["init", "full.yaml", "--base", "omnirefiner"]) == 0
    assert "and is not valid yet\n" in capfd.readouterr().out


def test_a_refinement_that_cannot_be_written_is_refused(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resolved.yaml").touch()  # as much of a run as is looked at before
    for out, message in {"a.png": "a.png is an input", "c": "ends in .png"}.items():
        assert code_of(["refine", ".", "a.png", "b.png", "-o", out]) == 2
        assert message in capfd.readouterr().err


def test_a_file_of_a_like_name_is_suggested(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").touch()
    for command in ("validate", "ablate"):
        assert code_of([command, "my.yml"]) == 2
        assert "did you mean 'my.yaml'?" in capfd.readouterr().err


def test_the_examples_of_init_make_valid_recipes(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = map(str.strip, cli.commands["init"].help.splitlines())
    examples = [line.removeprefix("rlrefine ") for line in lines if line.startswith("rlrefine ")]
    assert len(examples) == 3
    for line in examples:
        assert code_of(shlex.split(line)) == 0
        assert "and is valid\n" in capfd.readouterr().out


def test_a_script_reads_nothing_but_json(capfd, tmp_path, monkeypatch):
    def read(*arguments, code=0):
        assert code_of([*arguments, "--json"]) == code
        return json.loads(capfd.readouterr().out)

    monkeypatch.chdir(tmp_path)
    valid = read("validate", "omnirefiner_tiny")
    assert valid["valid"]
    assert valid["stages"]["grpo"]["evaluations"] == 3736
    (tmp_path / "my.yaml").write_text("base: omnirefiner_tiny\nrun: {sed: 1}\n")
    wrong = read("validate", "my.yaml", "stages.grpo.steps=x", code=2)
    assert not wrong["valid"]
    places = [(problem["key"], problem["source"], problem["line"]) for problem in wrong["problems"]]
    assert sorted(places) == [
        ("run.sed", "my.yaml", 2),
        ("stages.grpo.steps", "command line (stages.grpo.steps=x)", None),
    ]
    assert read("show", "omnirefiner_tiny", "run.seed=4")["run.seed"]["origin"] == "command line"
    assert read("rewards", "ls").keys() == read("ls", "rewards")["rewards"].keys()
    shown = read("rewards", "show", "masked_pixel")
    assert shown["needs"] == ["masks", "targets"]
    assert shown["keys"]["norm"]["default"] == "l2"
    assert "'l1'" in shown["keys"]["norm"]["type"]
    assert all(key["meaning"] for key in shown["keys"].values())


def test_exit_codes_tell_the_kind_of_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert code_of(["validate", "omnirefiner_tiny"]) == 0
    assert code_of(["validate", "omnirefiner_tiny", "run.seed=x"]) == 2
    assert code_of(["data", "check", "nowhere"]) == 3


def test_ls_names_every_part_with_a_line():
    found = json.loads(CliRunner().invoke(cli, ["ls", "--json"]).output)
    assert set(found) == {"recipes", "studies", "policies", "models", "rewards", "transforms", "objectives"}
    for entries in found.values():
        for name, text in entries.items():
            assert len(text) > 10, name
    assert "omnirefiner_tiny" in CliRunner().invoke(cli, ["ls", "recipes"]).output
    assert found["recipes"]["spie"].endswith("by online DPO on ranked samples. Not yet run.")  # over two lines


def test_a_copied_recipe_is_valid_and_finds_its_schema(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert code_of(["cp", "omnirefiner_tiny", "my.yaml"]) == 0
    assert code_of(["validate", "my.yaml"]) == 0
    first = (tmp_path / "my.yaml").read_text().splitlines()[0]
    schema = first.removeprefix("# yaml-language-server: $schema=")
    assert json.loads(Path(schema).read_text())["title"] == "rlrefine recipe"
    before = (tmp_path / "my.yaml").read_text()
    assert code_of(["cp", "omnirefiner_tiny", "my.yaml"]) == 2
    assert (tmp_path / "my.yaml").read_text() == before


def test_rows_are_built_checked_and_a_truncated_picture_is_named(tmp_path, capfd):
    rows = tmp_path / "rows"
    assert code_of(["data", "build", "photos:validation", str(rows), "--rows", "4"]) == 0
    assert "drafts at" in capfd.readouterr().out
    assert code_of(["data", "check", str(rows)]) == 0
    assert "4 rows, 16 images, all readable" in capfd.readouterr().out
    assert code_of(["data", "check", str(rows), "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == {"folder": str(rows), "rows": 4, "images": 16}
    victim = sorted(rows.glob("*-target.png"))[2]
    Image.open(victim).verify()
    victim.write_bytes(victim.read_bytes()[:200])
    assert code_of(["data", "check", str(rows)]) == 3
    assert victim.name in capfd.readouterr().err
