"""Writes a page for each built-in reward when the documentation is built: from the registry, from the docstrings of its
settings and its class, and from what is known of licences. A reward without one of these texts breaks the build.
"""

import importlib
import inspect
import re
from math import isinf
from typing import Any

from _recipe_keys import key_table
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from rewards.licences import MODELS, UNKNOWN, licence_of
from rewards.registry import REWARDS, Entry
from rlrefine.recipe.json_schema import json_schema

SECTION = re.compile(r"(Args|Raises|Range|Cost|Hacked by|Reference):\s*(.*)", flags=re.DOTALL)
WORDS = {"references": "references (one at least)"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The pages stand in the navigation without being listed there one by one."""
    for part in config.nav or []:
        for entries in part.values() if isinstance(part, dict) else ():
            if isinstance(entries, list) and "rewards.md" in entries:
                entries.insert(entries.index("rewards.md") + 1, {"Each reward": [address(name) for name in built_in()]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    definitions = json_schema()["$defs"]
    for name, entry in built_in().items():
        files.append(File.generated(config, address(name), content=page(name, entry, definitions[name])))
    return files


def built_in() -> dict[str, Entry]:
    """The rewards of this package."""
    return {name: entry for name, entry in REWARDS.items() if entry.package is None}


def address(name: str) -> str:
    return f"rewards/{name}.md"


def page(name: str, entry: Entry, definition: dict[str, Any]) -> str:
    """All that there is to know of one reward.

    Raises:
        SystemExit: a text is missing.
    """
    module, _, class_name = entry.place.partition(":")
    reward = getattr(importlib.import_module(module), class_name)
    said, licence = sections(inspect.getdoc(reward) or ""), licence_of(name)
    facts = {
        "class": f"`{module}.{class_name}`",
        "range": _range(reward, said),
        "needs": _conditions(entry, "needs"),
        "uses, where a row has it": _conditions(entry, "uses"),
        "licences": licence if licence != UNKNOWN else "",
        "reference": said.get("Reference", "ours"),
    }
    texts: dict[str, Any] = {"settings": inspect.getdoc(entry.settings), "what it measures": said["text"]}
    texts["formula"] = "```text" in said["text"]
    texts |= {key: said.get(key) for key in ("Cost", "Hacked by")} | facts
    undescribed = [key for key, field in definition["properties"].items() if not field.get("description")]
    missing = [key for key, text in texts.items() if not text]
    missing += [f"its key {key}" for key in undescribed if key != "name"]
    if missing:
        raise SystemExit(f"reward {name!r} ({entry.place}) has no text on: {', '.join(missing)}; see docs/extending.md")
    parts = [
        f"# `{name}`",
        _plain(inspect.getdoc(entry.settings) or ""),
        said["text"],
        _table(facts),
        *_weights(licence),
    ]
    parts += ["## Cost", _sentence(said["Cost"]), "## How it is hacked", _sentence(said["Hacked by"])]
    parts += ["## Keys", key_table(definition, page="../recipe_keys.md"), "## Before training by it", _try(name)]
    return "\n\n".join(parts) + "\n"


def sections(docstring: str) -> dict[str, str]:
    """The parts of a class's docstring: ``text``, with its equations as blocks, and each section under its name.

    >>> sections("How red it is.\\n\\n    r = 1\\n\\nCost: nothing\\n    at all.\\n\\n>>> 1\\n1")
    {'text': 'How red it is.\\n\\n```text\\nr = 1\\n```', 'Cost': 'nothing at all.'}
    """
    found: dict[str, str] = {}
    text = []
    for paragraph in re.split(r"\n\s*\n", docstring):
        section = SECTION.match(paragraph)
        if section:
            found[section[1]] = _plain(" ".join(section[2].split()))
        elif paragraph.startswith("    "):
            text.append(f"```text\n{inspect.cleandoc(paragraph)}\n```")
        elif not paragraph.startswith(">>>"):
            text.append(_plain(" ".join(paragraph.split())))
    return {"text": "\n\n".join(part for part in text if part), **found}


def _range(reward: type, said: dict[str, str]) -> str:
    bounds = getattr(reward, "range", None)
    if not isinstance(bounds, tuple):
        return said.get("Range", "")
    low, high = (f"{bound:g}".replace("-", "−") if not isinf(bound) else "no bound" for bound in bounds)
    return f"{low} to {high}; larger is better"


def _conditions(entry: Entry, which: str) -> str:
    """What the rows bring; where it follows from keys, with their defaults."""
    chosen = entry.settings()
    names = {"needs": entry.needs_with, "uses": entry.uses_with}[which](chosen)
    shown = ", ".join(WORDS.get(name, name) for name in sorted(names)) or "nothing"
    return f"{shown}, unless keys say otherwise" if hasattr(entry.settings, which) else shown


def _table(facts: dict[str, str]) -> str:
    lines = [f"| {key} | {_plain(text)} |" for key, text in facts.items() if text != "nothing" or key == "needs"]
    return "\n".join(["| | |", "|---|---|", *lines])


def _weights(licence: str) -> list[str]:
    """Where the terms depend on the weights, those that are known."""
    if "those of" not in licence:
        return []
    known = [f"| `{name}` | {terms} |" for name, terms in MODELS.items()]
    return ["Terms of weights that are known here; ask where others come from:", "\n".join(_HEAD + known)]


_HEAD = ["| weights | terms |", "|---|---|"]


def _try(name: str) -> str:
    command = f"rlrefine score --reward {name} --data my-rows"
    return (
        f"```bash\n{command}\n```\n\nshows what it says of drafts and targets, how fast, and whether it says it again."
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _plain(text: str) -> str:
    return text.replace("``", "`")
