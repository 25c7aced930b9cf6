"""Two packages that may not import each other keep their files in one place."""

import pytest

from rewards import judge_answers
from rewards.dreamsim_files import default_folder
from rlrefine.cache import cache_folder


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"RLREFINE_CACHE": "/own"}, "/own"),
        ({"RLREFINE_CACHE": "/own", "XDG_CACHE_HOME": "/users"}, "/own"),
        ({"XDG_CACHE_HOME": "/users"}, "/users/rlrefine"),
        ({"XDG_CACHE_HOME": ""}, "/home/someone/.cache/rlrefine"),
        ({}, "/home/someone/.cache/rlrefine"),
    ],
)
def test_rows_and_weights_of_rewards_are_kept_in_one_folder(variables, expected, monkeypatch):
    for name in ("RLREFINE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/someone", **variables}.items():
        monkeypatch.setenv(name, value)
    assert cache_folder().as_posix() == expected
    assert default_folder() == cache_folder() / "dreamsim"
    assert judge_answers.default_folder() == cache_folder() / "judge"
