"""Encode every training row of a recipe once, into a folder that its runs read from."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from rlrefine.data.build import open_rows
from rlrefine.data.records import Example
from rlrefine.errors import UsageError
from rlrefine.recipe.paths import with_absolute_paths
from rlrefine.recipe.schema import Engine as EngineSettings
from rlrefine.recipe.schema import Recipe
from rlrefine.training.encoded_cache import open_cache
from rlrefine.training.encoder import Encoder, Part
from rlrefine.training.engine import Engine
from rlrefine.training.handover import load_policy
from rlrefine.training.progress import Reporter


@dataclass(frozen=True, kw_only=True)
class Precomputed:
    """What a pass over the rows did."""

    rows: int
    made: int
    """Encodings that were not there before."""
    found: int


def precompute(recipe: Recipe, report: Reporter) -> Precomputed:
    """Fill ``data.encoded_cache``; what is there already is left as it is, so an interrupted pass goes on.

    Raises:
        UsageError: the recipe names no folder.
    """
    recipe = with_absolute_paths(recipe)
    cache = open_cache(recipe, report.say)
    if cache is None:
        raise UsageError("data.encoded_cache: expected a folder, found null; add data.encoded_cache=FOLDER")
    cache.clear_leftovers()
    rows = open_rows(recipe.data.train, (recipe.data.size[0], recipe.data.size[1]), recipe.data.choices)
    resident = replace(recipe.policy.settings, offload_encoders=False)  # the encoders work all along
    encoding = replace(recipe.policy, settings=resident)
    policy = load_policy(encoding, Engine(EngineSettings()).device, recipe.engine.precision, network=False)
    encoder = Encoder(policy=policy, roles=recipe.policy.settings.images, cache=cache)
    made = found = 0
    report.stage("precompute", 0, len(rows))
    for number in range(len(rows)):
        example = rows.example(number)
        for part in _parts_of(example):
            if cache.load(part, example, encoder.roles) is not None:
                found += 1
                continue
            encoder.make(part, example)
            made += 1
        report.step(number + 1, {})
    return Precomputed(rows=len(rows), made=made, found=found)


def _parts_of(example: Example) -> Iterator[Part]:
    """What of a row can be encoded."""
    yield "conditioning"
    if example.target is not None:
        yield "targets"
    if example.pair is not None:
        yield "pairs"
