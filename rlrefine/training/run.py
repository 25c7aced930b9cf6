"""A run: the stages of a recipe in order, then the held-out table and the report."""

import os
import re
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from policies.registry import POLICIES
from rlrefine.data.build import open_rows
from rlrefine.errors import UsageError
from rlrefine.evaluation.held_out import HeldOut
from rlrefine.recipe.arithmetic import check_processes
from rlrefine.recipe.load import load_recipe
from rlrefine.recipe.paths import with_absolute_paths
from rlrefine.recipe.problems import closest
from rlrefine.recipe.schema import Recipe
from rlrefine.report.page import write_report
from rlrefine.report.runs import ShownRun
from rlrefine.report.table import held_out_table
from rlrefine.runs import RESOLVED
from rlrefine.training.encoded_cache import open_cache
from rlrefine.training.encoder import Encodings
from rlrefine.training.engine import Engine
from rlrefine.training.folder import Judges, RunFolder
from rlrefine.training.progress import Reporter
from rlrefine.training.scoring import build_rewards, provenance
from rlrefine.training.stage import StageRun


def start(recipe: Recipe, name: str, report: Reporter, only_stage: str | None = None) -> RunFolder:
    """Begin a run in a folder of its own.

    Args:
        name: what the folder is called if the recipe does not say.
        only_stage: run this stage alone.

    Raises:
        PolicyError: the checkpoint is not at hand; there is no folder then.
        RewardError: a reward cannot be built, for example since its weights are missing; there is no folder then.
        RlrefineError: whatever stops it; what was reached is in the folder and can be resumed.
    """
    _check_stage(recipe, only_stage)
    judges = _check_parts(recipe)
    recipe = with_absolute_paths(recipe)
    engine = start_engine(recipe)
    name = engine.agree(recipe.run.name or f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")
    folder = RunFolder(Path(recipe.run.out) / name)
    if engine.is_main:
        folder.create(recipe, judges)
    report.say(f"run: {folder.root}")
    execute(recipe, folder, engine, report, only_stage)
    return folder


def resume(root: Path, report: Reporter, changes: Sequence[str] = (), only_stage: str | None = None) -> RunFolder:
    """Go on with a run where it stopped, exactly; one that is finished is left as it is.

    Args:
        changes: of the engine, as ``engine.key=value``, or of where rewards live: that decides nothing else.

    Raises:
        UsageError: there is no run in the folder, or a change is of something else.
    """
    for change in changes:
        if not _may_change(change):
            raise UsageError(
                f"{change}: a run keeps its recipe; only engine.…, without engine.precision, run.reward_failures.… and "
                f"rewards.LABEL.isolate.…, without bits, can change; begin another: rlrefine train {root}/{RESOLVED} "
                "KEY=VALUE run.name=…"
            )
    folder = RunFolder.of_run(root)
    recipe = load_recipe(folder.resolved, changes)
    _check_stage(recipe, only_stage)
    judges = _check_parts(recipe)
    for change in (*folder.changed_versions(), *folder.changed_judges(judges)):
        report.say(f"since the run began: {change}; the last bits of its numbers may differ from now on")
    execute(recipe, folder, start_engine(recipe), report, only_stage)
    return folder


def _may_change(change: str) -> bool:
    """Whether an override decides only where and how patiently things are computed."""
    isolation = re.match(r"rewards\.[^.=]+\.isolate\.(?!bits)", change)
    where = change.startswith(("engine.", "run.reward_failures.")) and not change.startswith("engine.precision")
    return where or isolation is not None


def start_engine(recipe: Recipe) -> Engine:
    """The engine that a recipe names, in the processes that a launcher started, or in this one alone.

    Raises:
        UsageError: so many processes cannot share the work.
    """
    check_processes(recipe, int(os.environ.get("WORLD_SIZE", "1")))
    return Engine(recipe.engine)


def _check_parts(recipe: Recipe) -> Judges:
    """What cannot be loaded, a model or the package or weights of a reward, stops a run here and not after a stage.

    Returns:
        What rewards say of themselves beside their settings.
    """
    POLICIES[recipe.policy.name].check_available(recipe.policy.settings)
    return provenance(build_rewards(recipe.rewards))


def _check_stage(recipe: Recipe, only_stage: str | None) -> None:
    if only_stage is not None and only_stage not in recipe.stages:
        raise UsageError(f"--stage {only_stage}: the recipe has no such stage; {closest(only_stage, recipe.stages)}")


def execute(recipe: Recipe, folder: RunFolder, engine: Engine, report: Reporter, only_stage: str | None = None) -> None:
    """Run the stages that are not finished, then evaluate and report; who interrupts it is told how to go on."""
    try:
        _execute(recipe, folder, engine, report, only_stage)
    except KeyboardInterrupt as stop:
        stop.add_note(f"what was saved is there: rlrefine resume {folder.root}")
        raise


def _execute(recipe: Recipe, folder: RunFolder, engine: Engine, report: Reporter, only_stage: str | None) -> None:
    size, choices = (recipe.data.size[0], recipe.data.size[1]), recipe.data.choices
    with folder.locked() if engine.is_main else nullcontext():
        with engine.main_first():  # which makes rows that are not there yet
            if engine.is_main:
                folder.clear_leftovers()
                if (cache := open_cache(recipe)) is not None:
                    cache.clear_leftovers()
            rows = open_rows(recipe.data.train, size, choices)
            validation = open_rows(recipe.data.validation, size, choices) if recipe.data.validation else None
            heldout = open_rows(recipe.data.heldout, size, choices) if recipe.data.heldout else None
        encodings: Encodings = {}
        for label in recipe.stages if only_stage is None else [only_stage]:
            stage = StageRun(
                recipe=recipe,
                label=label,
                folder=folder,
                rows=rows,
                validation=validation,
                engine=engine,
                encodings=encodings,
                report=report,
            )
            if not stage.is_finished:
                stage.run()
        if heldout is not None:
            tables = HeldOut(recipe=recipe, folder=folder, rows=heldout, engine=engine, report=report).evaluate()
            if engine.is_main:
                shown = ShownRun(recipe=recipe, folder=folder, validation=validation, heldout=heldout)
                write_report([shown], folder.report)
                report.say(held_out_table(tables))
        engine.wait()
    report.say(f"run: {folder.root}" + (f"   report: {folder.report}" if folder.report.exists() else ""))
