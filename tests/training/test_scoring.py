import json

import pytest
import torch

from rewards import Component, MaskedPixel, PatchPerceptual, RewardError, VlmJudge, WeightedRewards, WinRate
from rlrefine.recipe.load import load_recipe
from rlrefine.training.experience import chunks_of
from rlrefine.training.folder import RunFolder
from rlrefine.training.scoring import provenance, score_in_parts


@pytest.mark.parametrize("at_once", [1, 3, 6, 12])
def test_scores_do_not_depend_on_how_many_images_are_scored_at_once(batch, at_once):
    rewards = WeightedRewards(
        {"patch": Component(reward=PatchPerceptual(patch=16), weight=2.0), "pixel": Component(reward=MaskedPixel())}
    )
    images = torch.rand(12, 3, 32, 32)  # three samples of each of four rows
    whole = score_in_parts(rewards, batch, images, chunks_of(4, 3, None))
    cut = score_in_parts(rewards, batch, images, chunks_of(4, 3, at_once))
    torch.testing.assert_close(cut.total, whole.total, rtol=0, atol=1e-6)
    assert cut.breakdown.keys() == whole.breakdown.keys()
    for label, values in whole.breakdown.items():
        torch.testing.assert_close(cut.breakdown[label], values, rtol=0, atol=1e-6)
    assert whole.total.std() > 0


def test_a_reward_of_whole_groups_is_never_given_a_part_of_one(batch):
    """Whatever package it comes from: the check of a recipe only knows the built-in ones."""
    first = WinRate(lambda inputs, pairs: [1.0] * len(pairs))  # the earlier sample always wins
    rewards = WeightedRewards({"win": Component(reward=first)})
    images = torch.rand(12, 3, 32, 32)
    found = score_in_parts(rewards, batch, images, chunks_of(4, 3, 6)).breakdown["win"]
    assert found.reshape(4, 3).tolist() == [[1.0, 0.5, 0.0]] * 4
    with pytest.raises(RewardError, match="win: expected whole groups of 3 samples, found 1: reward_batch"):
        score_in_parts(rewards, batch, images, chunks_of(4, 3, 1))


def test_who_judges_is_written_into_the_run_and_a_change_is_named(tmp_path):
    judge = VlmJudge(weights={"quality": 1.0})
    said = provenance(WeightedRewards({"pixel": Component(reward=MaskedPixel()), "judge": Component(reward=judge)}))
    assert said == {"judge": judge.provenance}
    assert provenance(None) == {}
    folder = RunFolder(tmp_path / "run")
    folder.create(load_recipe("omnirefiner_tiny"), said)
    assert json.loads((folder.root / "judges.json").read_text()) == said
    assert folder.changed_judges(said) == []
    other = {"judge": {**said["judge"], "model": "another"}}
    assert folder.changed_judges(other) == ["model of rewards.judge is another"]
    assert len(folder.changed_judges({})) == 2
    RunFolder(tmp_path / "none").create(load_recipe("omnirefiner_tiny"), {})
    assert not (tmp_path / "none" / "judges.json").exists()
