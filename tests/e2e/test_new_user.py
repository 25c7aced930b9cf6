"""The walk of a new user, with what the pages show: a reward in a package of one's own is trained with, an ablation
says what it does, and both reports are opened elsewhere.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = (
    "data.validation=null", "data.size=[32,32]", "~rewards.keep", "~stages.sft_more", "stages.sft.steps=2",
    "stages.sft.prompts_per_step=2", "stages.sft.optimizer.warmup=0", "stages.grpo.steps=1",
    "stages.grpo.prompts_per_step=2", "stages.grpo.group_size=2", "stages.grpo.rollout.steps=3",
    "evaluation.rows=4", "evaluation.steps=2",
)  # fmt: skip
PROJECT = """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "mine"
version = "1.0"

[project.entry-points."rlrefine.rewards"]
brightness = "mine:Brightness"
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A clean folder, and beside it the package, made of the page on extending and installed by pip."""
    place = tmp_path_factory.mktemp("walk")
    page = (ROOT / "docs" / "extending.md").read_text()
    (code,) = [text for text in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) if "class Brightness" in text]
    package = place / "mine" / "src" / "mine"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(code)
    (place / "mine" / "pyproject.toml").write_text(PROJECT)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*pip, "--target", place / "site", place / "mine"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (place / "desk").mkdir()
    return place / "desk"


@pytest.fixture(scope="module")
def rlrefine(desk):
    """Type a command there."""
    environment = os.environ | {"PYTHONPATH": f"{desk.parent / 'site'}{os.pathsep}{ROOT}", "COLUMNS": "120"}

    def call(*words):
        done = subprocess.run(
            [sys.executable, "-m", "rlrefine", *map(str, words)],
            capture_output=True, text=True, cwd=desk, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


@pytest.fixture(scope="module")
def recipe(rlrefine, small_rows):
    """A recipe of one's own, with the reward in it, and the changes that make it small."""
    said = rlrefine("init", "my.yaml", "rewards.light.name=brightness", "rewards.light.weight=0.1")
    assert "my.yaml lies over omnirefiner_tiny, and is valid" in said
    return ("my.yaml", f"data.train={small_rows}/train", f"data.heldout={small_rows}/heldout", *SMALL)


@pytest.fixture(scope="module")
def run(rlrefine, recipe, desk):
    rlrefine("train", *recipe, "run.name=first")
    return desk / "runs" / "first"


@pytest.fixture(scope="module")
def study(rlrefine, recipe, desk):
    file, *changes = recipe
    rlrefine("ablate", file, "--seeds", "0,1", "count=4", *changes, "-o", "study")
    return desk / "study"


def test_the_reward_is_listed_and_the_recipe_valid(rlrefine, recipe):
    assert re.search(r"brightness +of mine 1\.0$", rlrefine("ls", "rewards"), flags=re.MULTILINE)
    assert "reward   light: brightness, weight 0.1" in rlrefine("validate", *recipe)


def test_it_is_trained_with_and_the_run_says_so(run):
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert 0 < records[-1]["reward/light"] < 1
    assert {"reward_share/light", "reward_share/patch", "reward_share/pixel"} <= set(records[-1])
    assert json.loads((run / "environment.json").read_text())["packages"]["mine"] == "1.0"
    assert "light" in (run / "summary.json").read_text()


def test_an_ablation_leaves_it_out(study):
    summary = json.loads((study / "summary.json").read_text())
    assert summary["seeds"] == [0, 1]
    assert {"full", "without_light", "without_patch", "without_pixel"} <= set(summary["arms"])


@pytest.mark.parametrize("page", ["run/report.html", "study/page.html"])
def test_what_is_shared_is_one_file(page, request):
    """Nothing in it leads out: no address, no file beside it, no path of this machine."""
    where, name = page.split("/")
    folder = request.getfixturevalue(where)
    text = (folder / name).read_text(encoding="utf-8")
    marked = re.sub(r"(?s)<script.*?</script>", "", text)
    led = re.findall(r"""(?:src|href|srcset|action|poster)\s*=\s*["']?([^"'\s>]+)""", marked)
    led += re.findall(r"url\(\s*[\"']?([^\"')]+)", text)
    assert led
    assert all(each.startswith(("data:", "#")) for each in led), [each[:80] for each in led]
    assert "@import" not in text
    assert len(text) < 10e6
