"""Where a reward lives, as a recipe says it: checked before torch is there, with a suggestion, and no secrets."""

import subprocess
import sys

import pytest

from rewards.isolated.settings import Isolation
from rlrefine.errors import RecipeError
from rlrefine.recipe.document import to_mapping
from rlrefine.recipe.load import load_recipe
from rlrefine.training.stage import _what_it_measures

RECIPE = """\
policy: {{name: flux_kontext, checkpoint: tiny-kontext}}
data: {{train: "photos:train"}}
rewards:
  pixel:
    name: masked_pixel
    isolate: {isolate}
stages:
  grpo: {{objective: grpo, steps: 2, optimizer: {{lr: 1.0e-4}}}}
"""


@pytest.fixture
def load(tmp_path):
    def given(isolate, *overrides):
        file = tmp_path / "r.yaml"
        file.write_text(RECIPE.format(isolate=isolate))
        return load_recipe(file, overrides)

    return given


@pytest.fixture
def environment(tmp_path):
    """What looks like a virtual environment."""
    python = tmp_path / "venv" / "bin" / "python3.11"
    python.parent.mkdir(parents=True)
    python.write_text("")
    (tmp_path / "venv" / "pyvenv.cfg").write_text("")
    return python


def test_every_form(load, environment):
    for isolate, expected in {
        "{}": Isolation(),
        "{processes: 2, batch: 4, timeout: 30, bits: 16}": Isolation(processes=2, batch=4, timeout=30.0, bits=16),
        "{environment: image_reward}": Isolation(environment="image_reward"),
        f"{{python: {environment}}}": Isolation(python=str(environment)),
        "{urls: ['https://a:1', 'http://b/x'], token_env: MY_TOKEN}": Isolation(
            urls=("https://a:1", "http://b/x"), token_env="MY_TOKEN"
        ),
    }.items():
        assert load(isolate).rewards["pixel"].isolate == expected
    assert load("null").rewards["pixel"].isolate is None
    assert load("{}", "rewards.pixel.isolate.timeout=5.5").rewards["pixel"].isolate.timeout == 5.5


WRONG = {
    "{timeot: 5.0}": r"r.yaml:6: rewards.pixel.isolate.timeot: found an unknown key, .*did you mean 'timeout'",
    "{timeout: 0.0}": "rewards.pixel.isolate.timeout: found 0, expected more than 0 seconds",
    "{timeout: soon}": "rewards.pixel.isolate.timeout: found 'soon', expected a number",
    "{processes: 0}": "rewards.pixel.isolate.processes: found 0, expected at least 1",
    "{bits: 12}": "rewards.pixel.isolate.bits: found 12, expected one of 8, 16, 32",
    "{environment: ../../evil}": "rewards.pixel.isolate.environment: found '../../evil', expected a name of letters",
    "{environment: a, urls: ['http://b']}": r"isolate.urls: found \('http://b',\), expected nothing beside environment",
    "{python: python3}": "isolate.python: found 'python3', expected an absolute path",
    "{python: /usr/bin/python3}": "isolate.python: found '/usr/bin/python3', expected …/bin/python of a virtual env",
    "{python: /bin/sh}": "isolate.python: found '/bin/sh', expected …/bin/python of a virtual environment",
    "{urls: http://a}": "rewards.pixel.isolate.urls: found 'http://a', expected a list",
    "{urls: ['ftp://a']}": "isolate.urls: found 'ftp://a', expected http://HOST:PORT or https://HOST",
    "{urls: ['file:///etc/passwd']}": "isolate.urls: found 'file:///etc/passwd', expected http",
    "{urls: ['http://a:99999']}": "isolate.urls: found 'http://a:99999', expected http",
    "{urls: ['http://a'], processes: 2}": "isolate.processes: found 2, expected 1, since servers have their own",
    "{token_env: MY_TOKEN}": "isolate.token_env: found 'MY_TOKEN' alone, expected urls with it",
    "http://a": "rewards.pixel.isolate: found 'http://a', expected a mapping",
}


@pytest.mark.parametrize("isolate", WRONG)
def test_what_is_wrong_is_told(load, isolate):
    with pytest.raises(RecipeError, match=WRONG[isolate]):
        load(isolate)


@pytest.mark.parametrize(
    "isolate",
    [
        "{urls: ['http://user:hunter2@a']}",
        "{urls: ['http://a?token=hunter2']}",
        "{urls: ['http://a'], token_env: hunter-2}",
    ],
)
def test_a_secret_in_a_recipe_is_refused_and_not_shown(load, isolate):
    with pytest.raises(RecipeError, match=r"isolate\.") as raised:
        load(isolate)
    assert "hunter" not in str(raised.value)


def test_it_is_checked_without_torch(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text(RECIPE.format(isolate="{urls: ['https://a'], token_env: T}"))
    code = f"""
import sys
from rlrefine.recipe.load import load_recipe
load_recipe({str(file)!r})
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_where_a_reward_lives_changes_no_stage(load):
    """So that a run goes on after its server has moved; but not with images that are rounded otherwise."""

    def measured(isolate):
        return _what_it_measures(to_mapping(load(isolate))["rewards"]["pixel"])

    here = measured("null")
    assert "isolate" not in here
    assert measured("{}") == here
    assert measured("{urls: ['https://a'], timeout: 3.0}") == here
    assert measured("{bits: 8}") != here != measured("{bits: 16}") != measured("{bits: 8}")
