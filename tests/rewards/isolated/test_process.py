"""T-42, T-43: a reward that hangs or dies, at every moment of its life: killed in time, started again, nothing left."""

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from rewards import Component, MaskedPixel, RewardError, RewardInputs, WeightedRewards
from rewards.isolated.client import close_all
from rewards.isolated.settings import Isolation
from rewards.measuring import measured
from rewards.testing import check_reward
from tests.rewards.isolated.conftest import gone, group_of

START = Isolation(batch=2, timeout=1.0, start_timeout=3.0)


def process_of(reward):
    return reward.crew.members[0].pid


def test_a_reward_is_the_same_in_a_process_of_its_own(elsewhere):
    reward = elsewhere("masked_pixel", Isolation(batch=3, processes=2))
    check_reward(reward)
    inputs = RewardInputs(
        images=torch.rand(6, 3, 32, 48), targets=torch.rand(3, 3, 32, 48), masks=torch.rand(3, 1, 32, 48)
    )
    assert torch.equal(reward(inputs).values, MaskedPixel()(inputs))
    assert (reward.needs, reward.uses, reward.range) == (MaskedPixel().needs, frozenset(), (-1.0, 0.0))
    assert elsewhere("masked_pixel", Isolation(batch=3, processes=2)).crew is reward.crew  # built twice, started once


@pytest.mark.parametrize(("bits", "worst"), [(8, 2 / 255), (16, 2 / 65535)])
def test_rounded_images_score_a_little_differently(elsewhere, bits, worst):
    """|d² − d'²| ≤ 2·|d − d'|, where both images are rounded by half a level: at most 2 levels·½·2."""
    reward = elsewhere("masked_pixel", Isolation(bits=bits))
    inputs = RewardInputs(images=torch.rand(4, 3, 8, 8), targets=torch.rand(4, 3, 8, 8), masks=torch.ones(4, 1, 8, 8))
    off = (reward(inputs).values - MaskedPixel()(inputs)).abs().max().item()
    assert 0 < off <= worst


def test_it_hangs_or_dies_in_the_middle_of_a_batch(naughty, inputs_with):
    """One process after the other is lost; each question after it is answered by a new one, from the same reward."""
    reward = naughty()
    expected = {"sleep": "timeout", "busy": "timeout", "native": "timeout"}
    causes = {
        "segfault": "was ended by SIGSEGV",
        "exit": "ended with code 7",
        "out of memory": "SIGKILL, as the system does when memory runs out",
    }
    starts = 1
    for prompt, kind in {**expected, **dict.fromkeys(causes, "crashed")}.items():
        pid = process_of(reward)
        begun = time.monotonic()
        scores = measured("n", reward, inputs_with("fine", "fine", prompt, "fine"))
        took = time.monotonic() - begun
        # two messages of two images, one after the other: the second is lost, the first is not
        assert [scores.failures[sample].kind for sample in (2, 3)] == [kind, kind], prompt
        assert set(scores.failures) == {2, 3}
        assert torch.allclose(scores.values[:2], torch.tensor([0.2, 0.4]))
        assert scores.values[2:].isnan().all()
        assert causes.get(prompt, "no answer within 1 seconds") in scores.failures[2].message
        if kind == "timeout":
            assert took < 1.0 + 1.0 + 0.5  # the limit, a second to kill, and the message before
        assert gone(pid)
        assert group_of(pid) == []
        again = measured("n", reward, inputs_with("fine"))
        assert not again.failures
        starts += 1
        assert reward.crew.members[0].starts == starts


def test_what_it_printed_last_is_told_and_a_flood_of_it_harms_nobody(naughty, inputs_with):
    reward = naughty()
    assert not measured("n", reward, inputs_with("print")).failures
    scores = measured("n", reward, inputs_with("exit"))
    assert "the last words" in scores.failures[0].message
    assert len(scores.failures[0].message) < 2000


def test_what_the_reward_itself_gets_wrong_is_told_as_if_it_were_here(naughty, inputs_with):
    scores = measured("n", naughty(), inputs_with("raise", "nan", "fine", "-inf", "nothing"))
    assert {sample: failure.kind for sample, failure in scores.failures.items()} == {
        0: "raised",
        1: "nan",
        3: "infinite",
    }
    assert "ZeroDivisionError" in scores.failures[0].message
    assert scores.applicable.tolist() == [True, True, True, True, False]
    assert math.isclose(scores.values[2].item(), 0.5, abs_tol=1e-6)


@pytest.mark.parametrize("how", ["sleep", "native"])
def test_it_hangs_as_it_warms_up(naughty, how):
    begun = time.monotonic()
    with pytest.raises(RewardError, match="not ready within 3 seconds; it was killed"):
        naughty(START, warm_up=how)
    assert time.monotonic() - begun < 3.0 + 1.0 + 0.5


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("segfault", "was ended by SIGSEGV before it was ready"),
        ("exit", "ended with code 7"),
        ("raise", "ZeroDivision"),
    ],
)
def test_it_dies_as_it_warms_up(naughty, how, message):
    with pytest.raises(RewardError, match=message):
        naughty(warm_up=how)


def venv_of(tmp_path, script):
    """What looks like the Python of a virtual environment, and is a script."""
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    (tmp_path / "venv" / "pyvenv.cfg").write_text("")
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    return str(python)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("sleep 600", "not ready within 1 seconds"),
        ("echo no torch here >&2; exit 3", "ended with code 3 before it was ready(?s:.*)no torch here"),
    ],
)
def test_its_python_hangs_or_ends_as_it_starts(naughty, tmp_path, script, message):
    with pytest.raises(RewardError, match=message):
        naughty(Isolation(python=venv_of(tmp_path, script), start_timeout=1.0))


def test_an_interpreter_that_is_not_there(tmp_path, elsewhere):
    file = Path(venv_of(tmp_path, "exit 0"))
    isolation = Isolation(python=str(file))
    file.unlink()
    with pytest.raises(RewardError, match="cannot be started"):
        elsewhere("masked_pixel", isolation)


def test_it_dies_between_two_batches_and_nobody_notices(naughty, inputs_with):
    reward = naughty()
    for number in range(2):
        os.kill(process_of(reward), signal.SIGKILL)
        assert gone(process_of(reward))
        assert not measured("n", reward, inputs_with("fine")).failures
        assert reward.crew.members[0].starts == number + 2


def test_nothing_is_left_when_it_is_closed(naughty):
    """It ignores SIGTERM, and has started something itself."""
    reward = naughty(warm_up="child")
    pid = process_of(reward)
    assert len(group_of(pid)) == 3  # the reward, its guard, and what it has started
    close_all()
    assert gone(pid)
    assert group_of(pid) == []


PARENT = """
import os, signal, sys, time
sys.path.insert(0, {site!r})
from rewards import RewardInputs
from rewards.isolated.client import isolated
from rewards.isolated.settings import Isolation
import torch
settings = {{"warm_up": "", "delay": 0.0, "record": ""}}
reward = isolated("n", "naughty", settings, Isolation(timeout=60.0))
print(reward.crew.members[0]._process.pid, flush=True)
wait = reward.begin(RewardInputs(images=torch.zeros(1, 3, 8, 8), prompts=[{prompt!r}]))
time.sleep(0.5)
{end}
"""


@pytest.mark.parametrize("prompt", ["native", "busy", "kill whoever asks"])
@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "sys.exit(0)"])
def test_nothing_outlives_the_process_that_asked(naughty, tmp_path, prompt, end):
    """kill -9 while the reward hangs with the interpreter's lock held: neither it nor its guard is there afterwards."""
    naughty  # noqa: B018, the package is installed
    code = PARENT.format(site=str(tmp_path / "site"), prompt=prompt, end=end)
    begun = time.monotonic()
    asking = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    pid = int(asking.stdout)
    assert gone(pid)
    assert group_of(pid) == []
    assert time.monotonic() - begun < 40, asking.stderr  # and the end of the program did not wait for the answer


def test_a_forked_child_starts_its_own(naughty, inputs_with):
    reward = naughty()
    assert not measured("n", reward, inputs_with("fine")).failures
    pid = process_of(reward)
    child = os.fork()
    if child == 0:
        right = not measured("n", reward, inputs_with("fine")).failures and process_of(reward) != pid
        os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert process_of(reward) == pid
    assert not measured("n", reward, inputs_with("fine")).failures


def test_rewards_elsewhere_and_here_are_composed_as_any(elsewhere, inputs_with):
    components = {
        "there": Component(reward=elsewhere("masked_pixel"), weight=2.0),
        "here": Component(reward=MaskedPixel(norm="l1")),
    }
    inputs = RewardInputs(images=torch.rand(4, 3, 8, 8), targets=torch.rand(2, 3, 8, 8), masks=torch.ones(2, 1, 8, 8))
    output = WeightedRewards(components)(inputs)
    assert torch.equal(output.breakdown["there"], MaskedPixel()(inputs))
    assert torch.equal(output.total, 2 * MaskedPixel()(inputs) + MaskedPixel(norm="l1")(inputs))
