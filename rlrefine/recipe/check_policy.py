"""Whether stages and evaluation ask of the policy what it can do. No torch here."""

from collections.abc import Iterator, Mapping
from typing import Any

from rlrefine.recipe.problems import Finding, Path
from rlrefine.recipe.schema import Recipe
from rlrefine.training.settings import SamplingSettings


def guidance(recipe: Recipe) -> Iterator[Finding]:
    """A policy with several conditions needs a scale of each, or 1 for none; any other takes one number, or only 1."""
    names = recipe.policy.settings.scales
    for path, given in _guidances(recipe):
        if isinstance(given, Mapping) and not names:
            yield path, _shown(given), "a number", f"{recipe.policy.name} is fed one scale for all its conditions"
        elif not getattr(recipe.policy.settings, "guided", True) and given != 1:
            yield (
                path,
                _shown(given),
                "1",
                f"this {recipe.policy.name} was distilled to need no guidance, and takes none",
            )
        elif (set(given) != set(names)) if isinstance(given, Mapping) else (len(names) > 1 and given != 1):
            example = ", ".join(f"{name}: {scale:g}" for name, scale in USUAL.items() if name in names)
            yield path, _shown(given), f"a scale of each of {', '.join(names)}, or 1", f"{{{example}}} is usual"


USUAL = {"image": 1.5, "style": 3.0, "text": 7.5}  # InstructPix2Pix, arXiv 2211.09800; SPIE, arXiv 2504.12833


def _guidances(recipe: Recipe) -> Iterator[tuple[Path, Any]]:
    """Every guidance of a recipe, and where it stands."""
    for label, stage in recipe.stages.items():
        if isinstance(stage.settings, SamplingSettings):
            yield ("stages", label, "rollout", "guidance"), stage.settings.rollout.guidance
        elif hasattr(stage.settings, "guidance"):
            yield ("stages", label, "guidance"), stage.settings.guidance
    yield ("evaluation", "guidance"), recipe.evaluation.guidance


def supervised_guidance(recipe: Recipe) -> Iterator[Finding]:
    """What is learned from given images is the velocity under all conditions, not one that guidance leads away from."""
    if len(recipe.policy.settings.scales) != 1:
        return
    for label, stage in recipe.stages.items():
        given = getattr(stage.settings, "guidance", 1)
        if not isinstance(given, Mapping) and given != 1:
            yield (
                ("stages", label, "guidance"),
                _shown(given),
                f"1, since {recipe.policy.name} is guided by a second evaluation, and {stage.objective} has none",
                "set guidance: 1.0",
            )


def _shown(given: Any) -> str:
    return (
        ", ".join(f"{name}: {scale:g}" for name, scale in given.items()) if isinstance(given, Mapping) else f"{given:g}"
    )


def levels(recipe: Recipe) -> Iterator[Finding]:
    """A network that was trained at the noise levels of its own schedule knows no others."""
    for label, stage in recipe.stages.items():
        if recipe.policy.settings.own_levels and getattr(stage.settings, "shift", "resolution") == "none":
            yield (
                ("stages", label, "shift"),
                "'none'",
                f"resolution, since {recipe.policy.name} knows the noise levels of its own schedule alone",
                "drop it",
            )
