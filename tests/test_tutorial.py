"""The loop on one page runs, teaches, and stays on one page."""

import importlib.util
from pathlib import Path

import pytest
import torch

FILE = Path(__file__).parent.parent / "docs" / "tutorial_loop.py"


@pytest.fixture
def tutorial():
    spec = importlib.util.spec_from_file_location("tutorial_loop", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reward_rises(tutorial):
    before, after = tutorial.main()
    assert before < -0.8
    assert after > -0.4


def test_without_advantages_it_does_not(tutorial, monkeypatch):
    monkeypatch.setattr(tutorial, "STEPS", 20)
    monkeypatch.setattr(tutorial, "advantages", torch.zeros_like)
    before, after = tutorial.main()
    assert abs(after - before) < 0.3


def test_it_fits_on_one_page():
    assert len(FILE.read_text().splitlines()) <= 150
