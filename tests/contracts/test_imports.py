"""What may be imported, and what an import brings with it; each in a fresh interpreter."""

import subprocess
import sys

import pytest

from tests.cli.walk import commands

HEAVY = ("diffusers", "transformers", "accelerate", "peft", "omegaconf", "pydantic", "rlrefine", "policies")
SLOW = {"torch", "diffusers", "transformers", "accelerate", "datasets", "numpy", "pandas", "matplotlib", "scipy", "PIL"}
QUIETLY = """
import contextlib, io
from rlrefine.cli import main
for arguments in {0!r}:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try: code = main(arguments)
        except SystemExit as stop: code = stop.code
    assert (code or 0) == {1!r}, arguments
"""
OTHERS = ("dreamsim", "torchvision", "open_clip", "timm", "numpy", "PIL", "scipy", "skimage")


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {line.partition(".")[0] for line in done.stdout.splitlines()}


def test_rewards_bring_torch_and_nothing_of_the_training_stack():
    loaded = modules_after("from rewards import MaskedPixel, PatchDreamSim, PatchPerceptual, WeightedRewards, ssim")
    assert "torch" in loaded
    assert not loaded & {*HEAVY, *OTHERS[:4]}


def test_listing_rewards_needs_not_even_torch():
    assert "torch" not in modules_after("import rewards, rewards.registry, policies.registry")


def test_the_package_brings_torch_only_with_what_needs_it():
    assert not modules_after("import rlrefine; rlrefine.__version__") & {"torch", "numpy", "diffusers"}
    assert "torch" in modules_after("from rlrefine import Refiner")


def test_two_tensors_are_scored_with_torch_alone():
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {(*HEAVY, *OTHERS)}: raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
import torch
from rewards import PatchPerceptual, RewardInputs
image = torch.rand(1, 3, 32, 32)
assert PatchPerceptual()(RewardInputs(images=image, targets=image)).item() == 1
from rewards import PatchDreamSim, RewardError
try: PatchDreamSim()
except RewardError as error: assert "rlrefine[dreamsim]" in str(error), error
else: raise AssertionError
"""
    modules_after(code)


@pytest.mark.parametrize(
    "arguments",
    [
        ["ls"],
        ["ls", "--json"],
        ["init", "my.yaml", "run.seed=1"],
        ["cp", "omnirefiner_tiny", "my.yaml"],
        ["show", "omnirefiner_tiny"],
        ["show", "omnirefiner_tiny", "--resolved", "--json"],
        ["validate", "omnirefiner_tiny"],
        ["schema"],
        ["rewards", "ls"],
        ["rewards", "show", "masked_pixel"],
        ["completion", "zsh"],
    ],
    ids=" ".join,
)
def test_commands_that_answer_without_torch(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not modules_after(QUIETLY.format([arguments], 0)) & SLOW


def test_every_help_and_every_mistake_answers_without_torch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    helps = [[*path, "--help"] for path, _ in [((), None), *commands()]]
    assert not modules_after(QUIETLY.format(helps, 0)) & SLOW
    mistakes = [["trian"], ["train"], ["train", "nope"], ["score", "nope"], ["ablate", "nope"], ["validate", "nope"]]
    mistakes += [["train", "omnirefiner_tiny", "stages.sft.step=1"], ["plan", "omnirefiner_tiny", "run.sed=1"]]
    mistakes += [["ablate", "group_size", change] for change in ("cuont=3", "against=[ful]", "stages.grp.steps=2")]
    assert not modules_after(QUIETLY.format(mistakes, 2)) & SLOW


def test_a_key_is_completed_without_torch():
    code = """
from click.shell_completion import ShellComplete
from rlrefine.cli import cli
offered = ShellComplete(cli, {}, "rlrefine", "").get_completions(["train", "omnirefiner_tiny"], "stages.grpo.gr")
assert [item.value for item in offered] == ["stages.grpo.group_size="]
"""
    assert not modules_after(code) & SLOW


def test_a_folder_of_the_users_that_hides_ours_is_named(tmp_path):
    (tmp_path / "rewards").mkdir()
    (tmp_path / "rewards" / "__init__.py").write_text("")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nfrom rlrefine.cli import main\nmain(['ls'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the package 'rewards' is found at" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_rewards_folder_where_the_command_runs_is_harmless(tmp_path):
    (tmp_path / "rewards").mkdir()
    (tmp_path / "rewards" / "__init__.py").write_text("raise SystemExit('the wrong rewards')")
    done = subprocess.run(
        [sys.executable, "-m", "rlrefine", "ls", "rewards"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert "masked_pixel" in done.stdout, done.stderr
