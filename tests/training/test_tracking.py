"""Trackers: what each is told, by the classes of accelerate; and that none can stop or slow a run.

TensorBoard is the real one. wandb, trackio, mlflow and swanlab are stand-ins with the calls that accelerate makes of
them, which record what they are given: that the real ones take it is not tested here.
"""

import sys
import threading
import time
import types

import numpy as np
import pytest
from PIL import Image

from rlrefine.recipe.load import load_recipe
from rlrefine.training import tracking
from rlrefine.training.folder import RunFolder
from rlrefine.training.progress import LineReporter
from rlrefine.training.tracking import KINDS, Tracked, Trackers

PICTURE = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))


class Recorder:
    """A module of which every call is written down, and returns the same again."""

    def __init__(self, calls, name=""):
        self.calls, self.name = calls, name

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Recorder(self.calls, f"{self.name}.{name}".lstrip("."))

    def __setitem__(self, key, value):
        pass

    def __call__(self, *given, **named):
        self.calls.append((self.name, given, named))
        return Recorder(self.calls, self.name)

    def __len__(self):
        return 0


class Limits(Recorder):
    """mlflow, whose limits accelerate asks for."""

    def __getattr__(self, name):
        numbers = {"MAX_PARAM_VAL_LENGTH": 500, "MAX_PARAMS_TAGS_PER_BATCH": 100}
        return numbers[name] if name in numbers else Limits(self.calls, super().__getattr__(name).name)


@pytest.fixture
def calls(monkeypatch):
    """What was asked of each stand-in, by its name."""
    made = {}
    for name in ("wandb", "trackio", "mlflow", "swanlab"):
        module, made[name] = types.ModuleType(name), []
        module.__getattr__ = (Limits if name == "mlflow" else Recorder)(made[name]).__getattr__
        monkeypatch.setitem(sys.modules, name, module)
    return made


@pytest.fixture
def tracked(tmp_path):
    run = tmp_path / "first"
    return Tracked(run=run, stage="sft", folder=run / "tensorboard" / "sft", step=0, recipe={"run.seed": 3})


@pytest.fixture
def track(tracked, capsys):
    """Track a few steps, and a picture; gives the notes."""

    def make(*names):
        notes = []
        with Trackers(names, tracked, LineReporter(), notes.append) as trackers:
            trackers.log({"loss": 0.5}, 1)
            trackers.log_image("samples", PICTURE, 1)
            trackers.log({"loss": 0.25}, 2)
        assert notes == capsys.readouterr().out.splitlines()
        return notes

    return make


def named(calls, name):
    return [(given, keywords) for called, given, keywords in calls if called == name]


@pytest.mark.parametrize("name", ["wandb", "trackio", "swanlab"])
def test_a_hosted_one_gets_name_recipe_metrics_and_pictures(name, calls, track):
    assert track(name) == []
    ((given, keywords),) = named(calls[name], "init")
    assert (given, keywords["project"]) == ((), "rlrefine")
    assert keywords["experiment_name" if name == "swanlab" else "name"] == "first/sft"
    ((config, _),) = named(calls[name], "config.update")
    assert config[0] == {"run.seed": 3}
    logged = [(given[0], keywords["step"]) for given, keywords in named(calls[name], "init.log")]
    assert [values for values, _ in logged][::2] == [{"loss": 0.5}, {"loss": 0.25}]
    assert [step for _, step in logged] == [1, 1, 2]
    assert list(logged[1][0]) == ["samples"]
    ((picture, _),) = named(calls[name], "Image")
    np.testing.assert_array_equal(picture[0], np.asarray(PICTURE))
    assert len(named(calls[name], "init.finish")) == 1


def test_mlflow_gets_name_recipe_metrics_and_pictures(calls, track):
    assert track("mlflow") == []
    assert named(calls["mlflow"], "create_experiment")[0][1]["name"] == "rlrefine"
    assert named(calls["mlflow"], "start_run")[0][1]["run_name"] == "first/sft"
    assert named(calls["mlflow"], "log_params") == [(({"run.seed": 3},), {})]
    steps = named(calls["mlflow"], "log_metrics")
    assert steps == [(({"loss": 0.5},), {"step": 1}), (({"loss": 0.25},), {"step": 2})]
    (((pixels,), keywords),) = named(calls["mlflow"], "log_image")
    np.testing.assert_array_equal(pixels, np.asarray(PICTURE))
    assert keywords == {"key": "samples", "step": 1}
    assert len(named(calls["mlflow"], "end_run")) == 1


def test_tensorboard_gets_metrics_and_pictures(track, tracked):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert track("tensorboard") == []
    events = EventAccumulator(str(tracked.folder))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 0.5), (2, 0.25)]
    assert [event.step for event in events.Images("samples")] == [1]


@pytest.mark.parametrize(("place", "left"), [("init", 0), ("init.log", 1), ("init.finish", 3)])
def test_one_that_fails_is_left_out_from_there_and_the_others_go_on(place, left, calls, track, monkeypatch):
    def fail(self, *given, **keywords):
        if self.name == place:
            raise RuntimeError("the service is down")
        return answer(self, *given, **keywords)

    answer = Recorder.__call__
    monkeypatch.setattr(Recorder, "__call__", fail)
    notes = track("wandb", "mlflow")
    assert notes == ["tracker wandb failed and is left out from here: RuntimeError: the service is down"]
    assert len(named(calls["wandb"], "init.log")) == (3 if left == 3 else 0)
    assert len(named(calls["mlflow"], "log_metrics")) == 2


def test_one_that_is_not_installed_is_said_once(track, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # as an import finds it that finds nothing
    (note,) = track("wandb")
    assert note.endswith("left out from here: it needs the package wandb: pip install wandb")


def test_one_that_hangs_stops_nothing(calls, track, monkeypatch):
    """The steps go on beside it, and the end waits for a while only."""
    held, given = threading.Event(), []

    def hang(self, values, step=None, **keywords):
        given.append(step)
        held.wait()

    monkeypatch.setattr(tracking.tracking.WandBTracker, "log", hang)
    monkeypatch.setattr(tracking, "PATIENCE", 0.05)
    notes = track("wandb", "tensorboard")  # on a busy machine the second one is not done so soon either
    held.set()
    assert "tracker wandb failed and is left out from here: it has not finished after 0.05 s" in notes
    assert given[0] == 1


def test_one_that_does_not_keep_up_is_left_out(calls, tracked, monkeypatch, capsys):
    held, notes = threading.Event(), []
    monkeypatch.setattr(tracking.tracking.WandBTracker, "log", lambda self, *given, **keywords: held.wait())
    monkeypatch.setattr(tracking, "WAITING", 5)
    monkeypatch.setattr(tracking, "PATIENCE", 0.05)
    with Trackers(["wandb"], tracked, LineReporter(), notes.append) as trackers:
        for step in range(20):
            trackers.log({"loss": 0.5}, step)
            time.sleep(0)
        held.set()
    assert notes == ["tracker wandb failed and is left out from here: it is 5 records behind"]


def test_a_recipe_may_name_those_that_there_are():
    names = ["tensorboard", "wandb", "trackio", "mlflow", "swanlab"]
    assert list(KINDS) == names
    assert load_recipe("omnirefiner_tiny", [f"run.trackers={names}"]).run.trackers == tuple(names)
    from rlrefine.errors import RecipeError

    with pytest.raises(RecipeError, match="did you mean 'wandb'"):
        load_recipe("omnirefiner_tiny", ["run.trackers=[wandbb]"])
    with pytest.raises(RecipeError, match="expected each once"):
        load_recipe("omnirefiner_tiny", ["run.trackers=[wandb, wandb]"])


def test_notes_are_of_a_stage_and_said_once(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.read_notes("sft") == []
    for stage, text in (("sft", "a"), ("grpo", "b"), ("sft", "a"), ("sft", "c")):
        folder.append_note(stage, text)
    assert folder.read_notes("sft") == ["a", "c"]
    with open(folder.notes, "a") as stream:
        stream.write('{"stage": "sft", "no')  # a kill
    assert folder.read_notes("sft") == ["a", "c"]
