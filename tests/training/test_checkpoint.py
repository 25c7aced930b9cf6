import random
from dataclasses import replace

import pytest
import torch

from rlrefine.errors import CheckpointError
from rlrefine.training.checkpoint import (
    Progress,
    TrainState,
    checkpoints,
    load_latest,
    read_generators,
    restore_generators,
    save_checkpoint,
)


def state_at(step, fingerprint="abc"):
    progress = Progress(stage="sft", step=step, updates=2 * step, evaluations=7 * step, fingerprint=fingerprint)
    tensors = {"w": torch.full((3,), float(step))}
    return TrainState(
        progress=progress,
        trained=tensors,
        ema=tensors,
        optimizer={"w|step": torch.tensor(float(step))},
        generators=[read_generators()],
    )


def test_what_was_saved_comes_back(tmp_path):
    save_checkpoint(tmp_path, state_at(5), keep=2)
    loaded = load_latest(tmp_path, "abc")
    assert loaded is not None
    assert loaded.progress == state_at(5).progress
    assert torch.equal(loaded.trained["w"], torch.full((3,), 5.0))


def test_old_weights_are_saved_where_there_are_any(tmp_path):
    save_checkpoint(tmp_path, state_at(1), keep=2)
    assert not list(tmp_path.glob("*/old.safetensors"))
    assert load_latest(tmp_path, "abc").old == {}
    save_checkpoint(tmp_path, replace(state_at(2), old={"w": torch.full((3,), 9.0)}), keep=2)
    assert torch.equal(load_latest(tmp_path, "abc").old["w"], torch.full((3,), 9.0))


def test_the_newest_are_kept(tmp_path):
    for step in (1, 2, 3, 10):
        save_checkpoint(tmp_path, state_at(step), keep=2)
    assert [place.name for place in checkpoints(tmp_path)] == ["step-000003", "step-000010"]


def test_without_a_checkpoint_there_is_none(tmp_path):
    assert load_latest(tmp_path / "nothing", "abc") is None


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(tmp_path):
    for step in (1, 2):
        save_checkpoint(tmp_path, state_at(step), keep=2)
    file = tmp_path / "step-000002" / "trained.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    said = []
    loaded = load_latest(tmp_path, "abc", said.append)
    assert loaded is not None
    assert loaded.progress.step == 1
    assert "trained.safetensors is not what was written" in said[0]
    names = sorted(place.name for place in tmp_path.iterdir())
    assert [name[:15] for name in names] == ["bad-step-000002", "step-000001"]
    save_checkpoint(tmp_path, state_at(2), keep=2)  # its name is free again
    assert len(checkpoints(tmp_path)) == 2


def test_if_none_is_whole_there_is_no_silent_fresh_start(tmp_path):
    save_checkpoint(tmp_path, state_at(1), keep=2)
    (tmp_path / "step-000001" / "state.json").unlink()
    with pytest.raises(CheckpointError, match=r"(?s)is whole.*step-000001: state\.json is missing"):
        load_latest(tmp_path, "abc", lambda text: None)


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path):
    save_checkpoint(tmp_path, state_at(1, "other"), keep=2)
    with pytest.raises(CheckpointError, match=r"another recipe.*fingerprint other, now abc"):
        load_latest(tmp_path, "abc")


def test_generators_go_on_where_they_were_in_each_process(tmp_path):
    def draw():
        return random.random(), torch.rand(2).tolist()

    states, expected = [], []
    for process in range(2):
        random.seed(process)
        torch.manual_seed(process)
        states.append(read_generators())
        expected.append(draw())
    save_checkpoint(tmp_path, replace(state_at(1), generators=states), keep=1)
    loaded = load_latest(tmp_path, "abc")
    assert loaded is not None
    for process in (1, 0):
        restore_generators(loaded.generators, process)
        assert draw() == expected[process]
    before = torch.get_rng_state()
    restore_generators(loaded.generators, 2)  # a process that was not there goes on with its own
    assert torch.equal(torch.get_rng_state(), before)
