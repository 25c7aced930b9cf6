"""What Tab offers."""

import subprocess

import pytest
from click.shell_completion import ShellComplete

from rlrefine.cli import cli
from rlrefine.cli.completing import SHELLS, VARIABLE, script


def offered(line):
    *words, begun = line.split(" ")
    return [item.value for item in ShellComplete(cli, {}, "rlrefine", VARIABLE).get_completions(words, begun)]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Two runs, a recipe of one's own, a broken one, and other things."""
    for name in ("first", "second"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "resolved.yaml").write_text("stages: {sft: {}, grpo: {}}\n")
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "my.yaml").write_text("base: omnirefiner_tiny\nstages: {last: {objective: sft, continues: sft}}\n")
    (tmp_path / "broken.yaml").write_text("stages: [\n")
    (tmp_path / "picture.png").touch()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("va", ["validate"]),
        ("train spie", ["spie", "spie_tiny"]),
        ("train m", ["my.yaml"]),
        ("show b", ["broken.yaml"]),
        ("ablate group", ["group_size"]),
        ("ls re", ["recipes", "rewards"]),
        ("resume ", ["runs/first", "runs/second", "runs/"]),
        ("report runs/f", ["runs/first"]),
        ("eval runs/", ["runs/first", "runs/notes/", "runs/second"]),
        ("score --reward masked_pi", ["masked_pixel"]),
        ("rewards show depth", ["depth_structure"]),
        ("train my.yaml --stage ", ["sft", "sft_more", "grpo", "last"]),
        ("resume runs/first --stage g", ["grpo"]),
        ("train omnirefiner_tiny st", ["stages."]),
        ("train omnirefiner_tiny stages.gr", ["stages.grpo."]),
        ("train omnirefiner_tiny stages.grpo.st", ["stages.grpo.steps=", "stages.grpo.step_weight="]),
        ("train omnirefiner_tiny stages.grpo.optimizer.war", ["stages.grpo.optimizer.warmup="]),
        ("train omnirefiner_tiny run.seed=1 rewards.patch.met", ["rewards.patch.metric="]),
        ("train omnirefiner_tiny ~stages.grpo.em", ["~stages.grpo.ema."]),
        ("init new.yaml --base spie_tiny data.tr", ["data.train="]),
        ("train broken.yaml st", []),
        ("train nowhere st", []),
        ("train broken.yaml --stage ", []),
        ("no_such_command st", []),
    ],
)
def test_what_is_offered(line, words):
    assert sorted(offered(line)) == sorted(words)


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_has_a_script_that_asks_this_program(shell):
    text = script(cli, shell)
    assert f"{VARIABLE}={shell}_complete" in text
    assert ("compopt -o nospace" in text) == (shell == "bash")


def test_bash_reads_its_script_and_completes_a_key_without_a_space(tmp_path):
    (tmp_path / "rlrefine").write_text("#!/bin/sh\nprintf 'plain,stages.\\n'\n")
    (tmp_path / "rlrefine").chmod(0o755)
    ask = "COMP_WORDS=(rlrefine train my.yaml st); COMP_CWORD=3; compopt() { echo compopt $@; }; "
    ask += f"_rlrefine_completion {tmp_path}/rlrefine; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", f"{script(cli, 'bash')}\n{ask}"], capture_output=True, text=True, check=True)
    assert done.stdout == "compopt -o nospace\nstages.\n"
