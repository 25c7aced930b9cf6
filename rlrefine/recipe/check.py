"""Rules that no single section can see: what each stage starts from, whether numbers divide, whether a setting can
have any effect.

Each rule is a generator of problems; together they are the check. Nothing here imports torch.
"""

import json
import re
from collections.abc import Callable, Iterator

from rewards.registry import REWARDS
from rlrefine.data.folder import read_rows
from rlrefine.data.sources import BUILT_IN, DataSource, parse_source
from rlrefine.errors import DataError
from rlrefine.recipe.arithmetic import stage_steps
from rlrefine.recipe.check_adapters import adapters
from rlrefine.recipe.check_layouts import shown_images
from rlrefine.recipe.check_policy import guidance, levels, supervised_guidance
from rlrefine.recipe.check_rollouts import rollouts
from rlrefine.recipe.conditions import PROVIDES, column_of, has_condition
from rlrefine.recipe.lineage import in_other_run
from rlrefine.recipe.paths import checkpoint_folder
from rlrefine.recipe.problems import Finding, Path, Problem, closest
from rlrefine.recipe.reading import Source
from rlrefine.recipe.schema import Recipe, StagePart
from rlrefine.training.registry import OBJECTIVES
from rlrefine.training.settings import GrpoSettings, SamplingSettings, SftSettings

RESERVED_LABELS = {
    "stages": frozenset({"checkpoint", "draft", "base", "wrong_reference"}),
    "rewards": frozenset({"total"}),
}
"""By section; the total is what all rewards come to."""
LOOKED_AT = 1000  # rows of each folder; all of them are when the run starts

Rule = Callable[[Recipe], Iterator[Finding]]


def cross_check(recipe: Recipe, source: Source) -> list[Problem]:
    """All problems that concern more than one key."""
    return source.located(finding for rule in RULES for finding in rule(recipe))


def labels(recipe: Recipe) -> Iterator[Finding]:
    """A stage's label names its folder, its adapter and its arm of the table; a reward's its measures and ablations."""
    if not recipe.stages:
        yield ("stages",), "no stage", "at least one", "for example sft: {objective: sft, …}"
    for section, reserved in RESERVED_LABELS.items():
        for label in getattr(recipe, section):
            if not re.fullmatch(r"[a-z][a-z0-9_]*", label) or label in reserved:
                yield (
                    (section, label),
                    repr(label),
                    f"lower-case letters, digits and _, not one of {', '.join(sorted(reserved))}",
                    f"rename the {section.removesuffix('s')}",
                )


def beginnings(recipe: Recipe) -> Iterator[Finding]:
    """A stage begins with the checkpoint, an earlier stage, or a stage of another run."""
    earlier: list[str] = []
    for label, stage in recipe.stages.items():
        known = ["checkpoint", *earlier]
        elsewhere = in_other_run(stage.init)
        if elsewhere is not None:
            if not (elsewhere[0] / "stages" / elsewhere[1] / "weights").is_dir():
                yield ("stages", label, "init"), repr(stage.init), "RUN/STAGE, where the run has finished the stage", ""
        elif stage.init not in known:
            yield (
                ("stages", label, "init"),
                repr(stage.init),
                "checkpoint, an earlier stage or RUN/STAGE",
                closest(stage.init, known),
            )
        if stage.continues is not None:
            yield from _continuation(recipe, label, stage, earlier)
        earlier.append(label)


def _continuation(recipe: Recipe, label: str, stage: StagePart, earlier: list[str]) -> Iterator[Finding]:
    path = ("stages", label, "continues")
    if stage.continues not in earlier:
        yield (
            path,
            repr(stage.continues),
            "an earlier stage",
            closest(str(stage.continues), earlier) if earlier else "put it after that stage",
        )
    elif recipe.stages[stage.continues].objective != stage.objective:
        yield (
            path,
            repr(stage.continues),
            f"an earlier stage whose objective is {stage.objective} too",
            "use init to begin from its weights",
        )
    if stage.init != "checkpoint":
        yield ("stages", label, "init"), repr(stage.init), "no init beside continues", "drop one of the two"


def lengths(recipe: Recipe) -> Iterator[Finding]:
    """A stage's steps are given, or follow from another stage's cost."""
    countable = not any(beginnings(recipe))  # a stage's steps can follow from another one's, which must be there
    for label, stage in recipe.stages.items():
        path = ("stages", label)
        other = stage.same_evaluations_as
        if stage.steps is None and other is None:
            yield (*path, "steps"), "nothing", "a number of steps", "or same_evaluations_as: another stage"
        elif stage.steps is not None and other is not None:
            yield (*path, "steps"), str(stage.steps), "no steps beside same_evaluations_as", "drop one of the two"
        elif other is not None and (other not in recipe.stages or recipe.stages[other].steps is None):
            yield (
                (*path, "same_evaluations_as"),
                repr(other),
                "a stage that has steps",
                closest(other, [name for name in recipe.stages if name != label]),
            )
        elif countable and stage.optimizer.warmup >= stage_steps(recipe, label):
            yield (
                (*path, "optimizer", "warmup"),
                str(stage.optimizer.warmup),
                f"fewer than the stage's {stage_steps(recipe, label)} steps",
                "shorten the warm-up",
            )


def geometry(recipe: Recipe) -> Iterator[Finding]:
    """Batches divide without remainder, so that every sample counts the same."""
    for label, stage in recipe.stages.items():
        group = stage.settings.group_size if isinstance(stage.settings, SamplingSettings) else 1
        whole = {
            "micro_batch": OBJECTIVES[stage.objective].unit == "group",
            "reward_batch": any(REWARDS[part.name].unit == "group" for part in recipe.rewards.values()),
        }
        for name in ("micro_batch", "rollout_batch", "reward_batch"):
            size = getattr(stage, name)
            if size is not None:
                compared = whole.get(name, False)
                yield from _division(("stages", label, name), size, stage.prompts_per_step, group, compared)


def _division(path: Path, micro: int, prompts: int, group: int, whole: bool) -> Iterator[Finding]:
    samples = prompts * group
    if samples % micro:
        sizes = [size for size in range(1, samples + 1) if samples % size == 0 and _fits(size, group, whole)]
        sum_ = f"{prompts} prompts × {group} samples = {samples}" if group > 1 else f"{samples} rows"
        found = f"{micro}, and {sum_} leaves a remainder of {samples % micro}"
        yield path, found, "a divisor", f"try one of {', '.join(map(str, sizes))}"
    elif not _fits(micro, group, whole):
        below = max(1, micro // group) * group
        yield (
            path,
            f"{micro} with groups of {group}",
            "whole groups, whose samples are compared with each other"
            if whole
            else "whole groups, or a divisor of one group",
            f"try {' or '.join(str(size) for size in sorted({group, below}))}",
        )


def _fits(micro_batch: int, group: int, whole: bool) -> bool:
    """Whether a micro-batch is made of whole groups or, where these may be split, divides one."""
    return micro_batch % group == 0 or (not whole and group % micro_batch == 0)


def learning_signal(recipe: Recipe) -> Iterator[Finding]:
    """Reinforcement learning needs rewards that count."""
    for label, stage in recipe.stages.items():
        if "rewards" not in OBJECTIVES[stage.objective].uses:
            continue
        if not any(reward.weight for reward in recipe.rewards.values()):
            found = "no reward" if not recipe.rewards else "no reward with a weight other than 0"
            yield ("rewards",), found, f"at least one for stage {label}", "for example pixel: {name: masked_pixel}"
        if isinstance(stage.settings, GrpoSettings):
            yield from _effects(label, stage.settings)
        difficulty = getattr(stage.settings, "difficulty", None)
        if difficulty is not None and difficulty.reward not in recipe.rewards:
            path = ("stages", label, "difficulty", "reward")
            yield path, repr(difficulty.reward), "the label of a reward", closest(difficulty.reward, recipe.rewards)


def _effects(label: str, grpo: GrpoSettings) -> Iterator[Finding]:
    """Settings that look active and cannot do anything: with one update the policy still is the old one."""
    path = ("stages", label)
    if grpo.updates_per_rollout == 1 and grpo.clip_range is not None:
        yield (
            (*path, "clip_range"),
            f"{' and '.join(f'{bound:g}' for bound in dict.fromkeys(grpo.clip_bounds))} with one update per rollout",
            "null, since the ratio is exactly 1 then and nothing is ever clipped",
            "set clip_range: null, or updates_per_rollout: 2",
        )
    if grpo.updates_per_rollout == 1 and grpo.kl.coef > 0 and grpo.kl.target == "old":
        yield (
            (*path, "kl", "target"),
            "'old' with one update per rollout",
            "another target, since the divergence and its gradient are exactly 0 then",
            "set kl.target: reference, or updates_per_rollout: 2",
        )


def rows(recipe: Recipe) -> Iterator[Finding]:
    """The data is there and has what rewards, objectives and the policy ask for."""
    for key in ("train", "validation", "heldout"):
        text, path = getattr(recipe.data, key), ("data", key)
        if text is None:
            continue
        try:
            first = first_rows(recipe, parse_source(text))
        except DataError as error:
            yield (
                path,
                repr(text),
                f"a folder with metadata.jsonl, or {', '.join(BUILT_IN)} with :train, :validation or :heldout",
                str(error).removeprefix("data: "),
            )
            continue
        if first is not None:
            yield from _columns(recipe, path, first)
        if key != "train" and text == recipe.data.train:
            yield path, repr(text), "rows that are not trained on", "give it a folder of its own"


def first_rows(recipe: Recipe, source: DataSource) -> list[dict[str, object]] | None:
    """Rows of a source as a run will use them: of built-in ones, which may not have been made yet, one of each kind;
    none of the built-in photos, which have everything that recipes for a refiner ask for.
    """
    choices = recipe.data.choices
    worded = bool(choices.templates)
    found = read_rows(source.folder, at_most=LOOKED_AT, worded=worded) if source.folder else source.examples
    if found is None:
        return None
    return [choices.applied(row, index) for index, row in enumerate(found)]


def _columns(recipe: Recipe, path: Path, first: list[dict[str, object]]) -> Iterator[Finding]:
    wanted = {
        (need, f"reward {label}")
        for label, reward in recipe.rewards.items()
        for need in REWARDS[reward.name].needs_with(reward.settings)
    }
    wanted |= {(need, "the policy") for need in getattr(recipe.policy.settings, "needs", ())}
    for label, stage in recipe.stages.items():
        wanted |= {(use, f"stage {label}") for use in OBJECTIVES[stage.objective].uses if use in PROVIDES}
        if isinstance(stage.settings, SftSettings) and stage.settings.mask_weight != 1:
            wanted.add(("masks", f"mask_weight of stage {label}"))
    for need, who in sorted(wanted):
        if not all(has_condition(row, need) for row in first):
            yield path, f"rows without {column_of(need)}", f"one in every row: {who} needs {need}", "add the column"
    yield from _never_applicable(recipe, path, first)
    yield from shown_images(recipe, path, first)


def _never_applicable(recipe: Recipe, path: Path, first: list[dict[str, object]]) -> Iterator[Finding]:
    """A reward that uses what no row has would never say anything."""
    for label, reward in recipe.rewards.items():
        for use in sorted(REWARDS[reward.name].uses_with(reward.settings)):
            if not any(has_condition(row, use) for row in first):
                expected = f"one in some rows: reward {label} applies only to those that have it"
                yield path, f"no row with {column_of(use)}", expected, "add the column, or take the reward out"


def image_size(recipe: Recipe) -> Iterator[Finding]:
    """Images are made of whole tokens, and patches fit into them."""
    height, width = recipe.data.size
    side = _token_side(recipe)
    if height < 1 or width < 1 or height % side or width % side:
        yield (
            ("data", "size"),
            f"{height} × {width}",
            f"multiples of {side} pixels for this model",
            f"try {_rounded(height, side)} × {_rounded(width, side)}",
        )
    for label, reward in recipe.rewards.items():
        patch = getattr(reward.settings, "patch", None)
        if patch is not None and patch > min(height, width):
            yield (
                ("rewards", label, "patch"),
                f"{patch} pixels",
                f"no more than the image's {min(height, width)}",
                "make the patch smaller",
            )


def _token_side(recipe: Recipe) -> int:
    """Pixels of one token: twice what the autoencoder shrinks by, if its configuration is at hand; 16 otherwise."""
    config = checkpoint_folder(recipe.policy.settings.checkpoint) / "vae" / "config.json"
    try:
        return 2 ** len(json.loads(config.read_text())["block_out_channels"])
    except (OSError, ValueError, KeyError):
        return 16


def _rounded(pixels: int, side: int) -> int:
    return max(side, round(pixels / side) * side)


def processes(recipe: Recipe) -> Iterator[Finding]:
    """What 8-bit weights cannot do: engines of several processes send every weight once, and these cannot be sent."""
    kind = getattr(recipe.policy.settings, "quantize", None)
    if kind is not None and recipe.engine.name != "single":
        yield (
            ("policy", "quantize"),
            f"{kind!r} with engine {recipe.engine.name}",
            "null, or engine.name: single",
            "engines of several processes cannot hand 8-bit weights round",
        )


def run_folder(recipe: Recipe) -> Iterator[Finding]:
    """The run's name is one folder."""
    name = recipe.run.name
    if name is not None and (not name or name in (".", "..") or re.search(r"[/\\\x00]", name)):
        yield ("run", "name"), repr(name), "the name of one folder", "put the place into run.out"


RULES: tuple[Rule, ...] = (
    labels,
    beginnings,
    lengths,
    geometry,
    learning_signal,
    rollouts,
    guidance,
    supervised_guidance,
    levels,
    rows,
    image_size,
    processes,
    run_folder,
    adapters,
)
