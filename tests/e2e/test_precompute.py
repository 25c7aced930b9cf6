"""Encode once, train from the folder: the same bits, and nothing is encoded again."""

import pytest

from policies.flux_kontext import FluxKontext
from rlrefine.errors import UsageError
from rlrefine.recipe.load import load_recipe
from rlrefine.training.encoded_cache import EncodedCache, open_cache
from rlrefine.training.encoder import Encoder
from rlrefine.training.precompute import precompute
from rlrefine.training.progress import LineReporter
from rlrefine.training.run import start


def test_a_pass_goes_on_where_it_stopped_and_a_run_reads_what_it_left(
    recipe_file, tmp_path, monkeypatch, uninterrupted
):
    recipe = load_recipe(recipe_file, [f"data.encoded_cache={tmp_path / 'cache'}"])
    first = precompute(recipe, LineReporter())
    assert (first.rows, first.made, first.found) == (12, 24, 0)
    cache = open_cache(recipe)
    assert cache is not None
    for file in sorted(cache.folder.rglob("*.safetensors"))[:5]:
        file.unlink()
    again = precompute(recipe, LineReporter())
    assert (again.made, again.found) == (5, 19)

    def encode(*given):
        raise AssertionError("every training row was encoded before")

    monkeypatch.setattr(Encoder, "_conditioning", encode)
    monkeypatch.setattr(Encoder, "_targets", encode)
    changes = [f"data.encoded_cache={tmp_path / 'cache'}", "data.keep_encoded=0", f"run.out={tmp_path}", "run.name=r"]
    folder = start(load_recipe(recipe_file, changes), "r", LineReporter(), only_stage="sft")
    weights = "stages/sft/weights/sft.safetensors"
    assert (folder.root / weights).read_bytes() == (uninterrupted / weights).read_bytes()


def test_a_missing_entry_is_looked_for_once_and_the_network_stays_away(recipe_file, tmp_path, monkeypatch):
    asked, loaded = [], []
    look, load = EncodedCache.load, FluxKontext.load
    monkeypatch.setattr(EncodedCache, "load", lambda self, *given: asked.append(given[0]) or look(self, *given))
    monkeypatch.setattr(FluxKontext, "load", lambda *given, **named: loaded.append(named) or load(*given, **named))
    done = precompute(load_recipe(recipe_file, [f"data.encoded_cache={tmp_path / 'cache'}"]), LineReporter())
    assert len(asked) == done.made == 24
    assert loaded == [{"network": False}]


def test_without_a_folder_there_is_nothing_to_fill(recipe_file):
    with pytest.raises(UsageError, match=r"data\.encoded_cache: expected a folder, found null"):
        precompute(load_recipe(recipe_file), LineReporter())


def test_precision_and_prompt_length_make_other_entries_and_adapters_do_not(recipe_file, tmp_path):
    def model(*changes):
        cache = open_cache(load_recipe(recipe_file, [f"data.encoded_cache={tmp_path}", *changes]))
        assert cache is not None
        return cache.model

    assert model("policy.lora.rank=8", "stages.sft.steps=3") == model()
    assert len({model(), model("engine.precision=bf16"), model("policy.prompt_tokens=16")}) == 3
