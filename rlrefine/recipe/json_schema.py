"""The JSON Schema of a recipe file, for completion and checks in an editor."""

from typing import Any

from rlrefine.recipe import schema
from rlrefine.recipe.document import OBJECTIVE, POLICY, REWARD, TRANSFORM, document_adapter
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
    found = {
        cls.__name__: descriptions(cls)
        for cls in (schema.Data, schema.Engine, schema.Evaluation, schema.Run, schema.Optimizer, schema.Ema)
    }
    for kind in (POLICY, REWARD, OBJECTIVE, TRANSFORM):
        for name, entry in kind.registry.items():
            found[name] = descriptions(kind.shared) | descriptions(entry.settings)
            for hint in vars(entry.settings).get("__annotations__", {}).values():
                found |= _nested(hint)
    return found


def _nested(hint: Any) -> dict[str, dict[str, str]]:
    if isinstance(hint, type) and hasattr(hint, "__dataclass_fields__"):
        found = {hint.__name__: descriptions(hint)}
        for inner in vars(hint).get("__annotations__", {}).values():
            found |= _nested(inner)
        return found
    return {}
