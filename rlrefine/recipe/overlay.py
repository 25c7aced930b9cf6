"""Keys that an overlay takes away from its base: ``~key`` with nothing after it, as on the command line."""

from collections.abc import Iterator, Mapping
from typing import Any

from rlrefine.recipe.problems import Finding, Path, closest


def without_marks(data: Any) -> Any:
    """What an overlay sets, without what it deletes.

    >>> without_marks({"stages": {"~grpo": None, "sft": {"steps": 7}}})
    {'stages': {'sft': {'steps': 7}}}
    """
    if not isinstance(data, Mapping):
        return data
    return {key: without_marks(value) for key, value in data.items() if not _is_mark(key)}


def delete_marked(overlay: Any, below: Any, path: Path = ()) -> Iterator[Finding]:
    """Delete from ``below`` what the overlay marks; gives what cannot be deleted.

    >>> base = {"stages": {"sft": {}, "grpo": {}}}
    >>> list(delete_marked({"stages": {"~grpo": None}}, base)), base
    ([], {'stages': {'sft': {}}})
    """
    if not isinstance(overlay, Mapping):
        return
    present: dict[str, Any] = below if isinstance(below, dict) else {}
    for key, value in overlay.items():
        here = (*path, str(key))
        if not _is_mark(key):
            yield from delete_marked(value, present.get(key), here)
        elif value is not None:
            yield here, repr(value), "nothing, since ~ deletes the key", "write nothing after the colon"
        elif key[1:] not in present:
            yield here, "a key to delete", "one that the base has", closest(key[1:], present)
        elif key[1:] in overlay:
            present[key[1:]] = None  # what takes its place stands where it stood: the order of stages counts
        else:
            del present[key[1:]]


def _is_mark(key: object) -> bool:
    return isinstance(key, str) and key.startswith("~")
