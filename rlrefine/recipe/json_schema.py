"""The JSON Schema of a recipe file, for completion and checks in an editor."""

from typing import Any, get_type_hints

from rlrefine.recipe import schema
from rlrefine.recipe.document import OBJECTIVE, POLICY, REWARD, TRANSFORM, dataclasses_in, document_adapter
from rlrefine.recipe.keys import descriptions


def json_schema() -> dict[str, Any]:
    """The schema of the recipe language as this version and its plug-ins speak it."""
    made = document_adapter().json_schema()
    made["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    made["title"] = "rlrefine recipe"
    classes = _described_classes()
    for name, definition in made["$defs"].items():
        for key, inner in definition.get("properties", {}).items():
            inner.pop("title", None)
            if text := classes.get(name, {}).get(key):
                inner["description"] = text
    for inner in made["properties"].values():
        inner.pop("title", None)
    return made


def _described_classes() -> dict[str, dict[str, str]]:
    """For each definition of the schema what its keys mean."""
    found: dict[str, dict[str, str]] = {}
    for kind in (POLICY, REWARD, OBJECTIVE, TRANSFORM):
        for name, entry in kind.registry.items():
            found[name] = descriptions(kind.shared) | descriptions(entry.settings)
            found |= _nested(entry.settings)
    return found | _nested(schema.Recipe) | _nested(schema.StagePart) | _nested(schema.RewardPart)


def _nested(cls: type) -> dict[str, dict[str, str]]:
    """The descriptions of every dataclass that the fields of ``cls`` hold."""
    found = {}
    for hint in get_type_hints(cls).values():
        for inner in dataclasses_in(hint):
            found |= {inner.__name__: descriptions(inner)} | _nested(inner)
    return found
