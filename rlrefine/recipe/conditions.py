"""Which columns of the data give rewards and objectives the conditions that they ask for. No torch here."""

from rlrefine.data.choices import roles_of

PROVIDES = {
    "prompts": "prompt",
    "drafts": "draft_file_name",
    "targets": "target_file_name",
    "masks": "mask_file_name",
    "references": "reference_file_names",
    "pairs": "chosen_file_name",
}
"""Condition → column; a condition that is not among them is a column of its own name."""


def column_of(condition: str) -> str:
    """The column that provides a condition; an extra is a column of its own name."""
    name, _, role = condition.partition(".")
    return f"a reference of the role {role!r}" if name == "references" and role else PROVIDES.get(condition, condition)


def has_condition(row: dict[str, object], condition: str) -> bool:
    """Whether a row of the table has what a condition is made of.

    >>> has_condition({"draft_file_name": "a.png"}, "drafts"), has_condition({"pose": None}, "pose")
    (True, False)
    """
    name, _, role = condition.partition(".")
    if name == "references":
        return role in roles_of(row) if role else bool(roles_of(row))
    return row.get(PROVIDES.get(condition, condition)) not in (None, "", [])
