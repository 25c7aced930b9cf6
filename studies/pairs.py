"""Pairs for offline DPO from rows with targets: ``python -m studies.pairs FOLDER``.

The target is preferred to the draft, which has the same picture with a wrong detail. Nothing is sampled and nothing
scored, so that the pairs cost no network evaluations.
"""

import json
import shutil
import sys
from pathlib import Path

from rlrefine.data.folder import METADATA, named_files, read_rows
from rlrefine.training.publish import publish


def write_pairs(rows: Path, target: Path) -> int:
    """Copy rows into a new folder, with their targets as chosen and their drafts as rejected images.

    Returns:
        How many rows there are.
    """
    found = read_rows(rows)
    pairs = [
        {**row, "chosen_file_name": row["target_file_name"], "rejected_file_name": row["draft_file_name"]}
        for row in found
    ]

    def fill(partial: Path) -> None:
        for name in named_files(found):
            shutil.copyfile(rows / name, partial / name)
        lines = "".join(json.dumps(row) + "\n" for row in pairs)
        (partial / METADATA).write_text(lines, encoding="utf-8")

    publish(target, fill)
    return len(pairs)


def main(target: Path) -> None:
    """Write the pairs of the built-in training photos, unless they are there."""
    if (target / METADATA).is_file():
        return
    from rlrefine.data.build import built_in_folder  # brings diffusers
    from rlrefine.data.sources import parse_source

    print(f"{target}: {write_pairs(built_in_folder(parse_source('photos:train'), (64, 64)), target)} pairs")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
