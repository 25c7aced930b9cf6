"""Whether the rows have the images that the policy is shown, and where their number may differ. No torch here."""

from collections.abc import Iterator, Sequence

from rlrefine.data.choices import roles_of
from rlrefine.data.folder import ALL_REFERENCES
from rlrefine.recipe.problems import Finding, Path, closest
from rlrefine.recipe.schema import Recipe
from rlrefine.training.registry import OBJECTIVES

Row = dict[str, object]


def shown_images(recipe: Recipe, path: Path, rows: Sequence[Row]) -> Iterator[Finding]:
    """Every row has an image of each role that the policy is shown."""
    roles = {role for row in rows for role in roles_of(row)}
    for index, role in enumerate(recipe.policy.settings.images):
        here = ("policy", "images", index)
        if role == "draft" or (role == ALL_REFERENCES and roles):
            continue
        without = sum(role not in roles_of(row) for row in rows)
        if role not in roles:
            yield here, repr(role), "a role that the rows have", closest(role, {"draft", *roles})
        elif without:
            yield (
                path,
                f"{without} of {len(rows)} rows without a reference of the role {role!r}",
                "one in every row, since policy.images names the role",
                f"show {ALL_REFERENCES}, which are those that each row has",
            )
    yield from _differing(recipe, path, rows)


def _differing(recipe: Recipe, path: Path, rows: Sequence[Row]) -> Iterator[Finding]:
    """Rows of different layout are calls of their own; where parameters are divided all processes make as many."""
    engine = recipe.engine
    divided = engine.name == "fsdp2" or (engine.name == "deepspeed" and engine.zero_stage == 3)
    counts = sorted({shown_in(row, recipe.policy.settings.images) for row in rows})
    if not divided or len(counts) == 1:
        return
    for label, stage in recipe.stages.items():
        group = getattr(stage.settings, "group_size", 1) if "rollout" in OBJECTIVES[stage.objective].uses else 1
        for key in ("micro_batch", "rollout_batch"):
            given = getattr(stage, key)
            if (given or (group + 1 if key == "micro_batch" else 0)) > group:
                yield (
                    ("stages", label, key),
                    f"{given or 'all samples of the step'}, with rows of {counts[0]} to {counts[-1]} images to show",
                    f"samples of one row, at most {group}: {engine.name} divides the parameters, so all processes must "
                    "call the network equally often, and rows of different layout are calls of their own",
                    f"set {key}: {group}",
                )
    if recipe.evaluation.batch > 1:
        found = f"{recipe.evaluation.batch}, with rows of {counts[0]} to {counts[-1]} images to show"
        yield ("evaluation", "batch"), found, f"1, for the same reason ({engine.name})", "set evaluation.batch: 1"


def shown_in(row: Row, images: Sequence[str]) -> int:
    """How many of a row's images the policy is shown.

    >>> shown_in({"reference_file_names": ["a", "b"], "reference_roles": ["style", "light"]}, ["draft", "references"])
    3
    """
    roles = roles_of(row)
    counts = {"draft": 1, ALL_REFERENCES: len(roles)}
    return sum(counts.get(role, roles.count(role)) for role in images)
