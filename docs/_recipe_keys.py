"""Writes the page of all recipe keys from the JSON Schema when the documentation is built."""

import json
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from rlrefine.recipe.json_schema import json_schema

HEAD = """# Recipe keys

Every key that a recipe may have, from the same dataclasses that check it. A key without a default must be given.
"""
SECTIONS = {
    "Policies": ["flux_kontext", "flux2", "qwen_image_edit_plus", "instruct_pix2pix", "LoraSettings"],
    "Data": ["Data", "Prompts"],
    "Rewards": [
        "patch_perceptual",
        "patch_dreamsim",
        "masked_pixel",
        "masked_perceptual",
        "target_similarity",
        "style_similarity",
        "depth_structure",
        "region_similarity",
        "image_reward",
        "DetectionSettings",
        "gradient_structure",
        "region_colour",
        "region_texture",
        "style_colour",
        "psnr",
        "ms_ssim",
        "lpips",
        "dists",
        "text_alignment",
        "edit_direction",
        "pick_score",
        "aesthetic",
        "ocr_text",
        "face_identity",
        "vlm_judge",
        "vlm_win_rate",
        "Isolation",
    ],
    "Transforms": ["affine", "clip", "logistic", "drs", "rank"],
    "Stages": [
        "sft",
        "grpo",
        "online_dpo",
        "offline_dpo",
        "nft",
        "Optimizer",
        "Ema",
        "RolloutSettings",
        "StochasticSettings",
        "KlSettings",
        "DropSettings",
        "DifficultySettings",
        "OldSettings",
    ],
    "The run": ["Engine", "Evaluation", "Run", "RewardFailures"],
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    files.append(File.generated(config, "recipe_keys.md", content=page(json_schema()["$defs"])))
    return files


def page(definitions: dict[str, Any]) -> str:
    listed = [name for names in SECTIONS.values() for name in names]
    if set(listed) != set(definitions):
        raise SystemExit(f"docs/_recipe_keys.py lists {sorted(listed)}, the schema has {sorted(definitions)}")
    parts = [HEAD]
    for title, names in SECTIONS.items():
        parts.append(f"\n## {title}\n")
        for name in names:
            parts.append(_table(name, definitions[name]))
    return "\n".join(parts)


def _table(name: str, definition: dict[str, Any]) -> str:
    return f"\n### `{name}`\n\n{definition.get('description', '')}\n\n{key_table(definition)}"


def key_table(definition: dict[str, Any], page: str = "") -> str:
    """The keys of one section of the schema; ``page`` is where other sections are, if not on the same one."""
    rows = ["| key | type | default | meaning |\n|---|---|---|---|"]
    required = definition.get("required", [])
    for key, entry in definition["properties"].items():
        default = "" if key in required else f"`{_plain(entry['default'])}`" if "default" in entry else "see there"
        rows.append(
            f"| `{key}` | {_type(entry, page)} | {default} | {entry.get('description', '').replace('``', '`')} |"
        )
    return "\n".join(rows)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _type(entry: dict[str, Any], page: str) -> str:
    if "$ref" in entry:
        name = entry["$ref"].rpartition("/")[2]
        return f"[{name}]({page}#{name.lower()})"
    if "anyOf" in entry or "oneOf" in entry:
        return " or ".join(_type(inner, page) for inner in entry.get("anyOf") or entry["oneOf"])
    if "enum" in entry or "const" in entry:
        return " or ".join(f"`{value}`" for value in entry.get("enum", [entry.get("const")]))
    if entry.get("type") == "array":
        return "list"
    return entry.get("type", "any")
