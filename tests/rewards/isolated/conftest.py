"""Rewards in processes of their own, none of which outlives its test."""

import time
from dataclasses import asdict

import pytest
import torch

from rewards import RewardInputs
from rewards.isolated.client import close_all, isolated
from rewards.isolated.settings import Isolation
from rewards.registry import REWARDS
from tests.rewards.test_plugins import install


def pytest_collection_modifyitems(config, items):
    """Environments come from the package index, and take their time: for ``-m environments`` alone."""
    if "environments" not in config.option.markexpr:
        for item in items:
            if item.get_closest_marker("environments"):
                item.add_marker(pytest.mark.skip(reason="makes an environment; run with -m environments"))


NAUGHTY = {"warm_up": "", "delay": 0.0, "record": ""}


@pytest.fixture(autouse=True)
def ended():
    yield
    close_all()


@pytest.fixture
def naughty(tmp_path, monkeypatch):
    """The reward that misbehaves, as an installed package; only its own process imports it."""
    site = tmp_path / "site"
    install(site, "naughty", {"naughty": "tests.rewards.isolated.naughty:Naughty"})
    monkeypatch.syspath_prepend(str(site))

    def make(isolation=None, **settings):
        return isolated("n", "naughty", {**NAUGHTY, **settings}, isolation or Isolation(batch=2, timeout=1.0))

    return make


@pytest.fixture
def elsewhere():
    """A built-in reward in a process of its own."""

    def make(name, isolation=None, **settings):
        return isolated(name, name, asdict(REWARDS[name].settings(**settings)), isolation or Isolation())

    return make


@pytest.fixture
def inputs_with():
    """One row for each prompt, images of its own brightness."""

    def make(*prompts, group=1, side=8):
        count = len(prompts) * group
        light = (torch.arange(count) + 1) / (count + 1)
        return RewardInputs(images=light[:, None, None, None].expand(count, 3, side, side), prompts=list(prompts))

    return make


def gone(pid, within=5.0):
    """Whether a process ends, and is no zombie of ours either."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def group_of(pid):
    """All processes of the group that a process leads."""
    from pathlib import Path

    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found
