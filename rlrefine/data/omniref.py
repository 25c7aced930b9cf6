"""OmniRef-Bench's metadata, as it is published, made into rows of a folder. No torch here.

A list of entries in JSON, of which these are read:

    {"index": 297, "prompt": "…", "category": "subject_pose", "edit_image": ["…/transfer_subjects/a man.png", …]}

What a reference is for is the folder that it lies in; a subject is called what its file is called. There is no image to
edit: the draft is an empty canvas that says how large the picture is to be. ``image``, the target, is not read, since
no measure looks at it.

Reference: DyRef, arXiv 2606.26947; ``benchmark/metadata/benchmark.json`` of its released code, and how that reads it.
"""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from rlrefine.data.folder import METADATA
from rlrefine.errors import DataError

ROLES = {
    "transfer_subjects": "subject",
    "style": "style",
    "background": "background",
    "lighting": "lighting",
    "skeleton": "pose",
    "reference": "pose",
}
"""The folder of a reference → what it is for; a pose is a skeleton or a photo, in ``pose/skeleton`` or
``pose/reference``."""
CANVAS = "canvas.png"
GREY = (128, 128, 128)


def role_of(file: str) -> str:
    """What a reference is for, by the folder that it lies in.

    >>> role_of("subject_bg_style/4/0/style/reference.png"), role_of("subject_pose/3/1/pose/skeleton/a_man.jpg")
    ('style', 'pose')

    Raises:
        DataError: the folder is none of the known ones.
    """
    folder = PurePosixPath(file).parent
    role = ROLES.get(folder.name)
    if role is None or (role == "pose") != (folder.parent.name == "pose"):
        known = "transfer_subjects, style, background, lighting, pose/skeleton or pose/reference"
        raise DataError(f"data: reference {file!r} lies in no folder that says what it is for; expected {known}")
    return role


def keypoints_file(file: str) -> str:
    """Where the joints of a pose reference are: beside a photo, or in the folder ``keypoints`` beside skeletons.

    >>> keypoints_file("a/pose/skeleton/a_man.jpg"), keypoints_file("a/pose/reference/a_man_skeleton.jpg")
    ('a/pose/keypoints/a_man.json', 'a/pose/reference/a_man.json')
    """
    path = PurePosixPath(file)
    if path.parent.name == "skeleton":
        return str(path.parent.parent / "keypoints" / f"{path.stem}.json")
    return str(path.parent / f"{path.stem.replace('_skeleton', '')}.json")


def row_of(entry: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """One entry of the metadata as a row; its id is the index, as their pictures are named.

    Args:
        folder: where the references are.

    Raises:
        DataError: a column is missing or of another kind, or a file of joints cannot be read.
    """
    for column, kind in (("index", int), ("prompt", str), ("category", str), ("edit_image", list)):
        if not isinstance(entry.get(column), kind):
            raise DataError(f"data: {column}: expected {kind.__name__}, found {entry.get(column)!r} in {dict(entry)}")
    files = [str(file) for file in entry["edit_image"]]
    roles = [role_of(file) for file in files]
    poses = [file for file, role in zip(files, roles, strict=True) if role == "pose"]
    row = {
        "id": str(entry["index"]),
        "prompt": entry["prompt"],
        "draft_file_name": CANVAS,
        "reference_file_names": files,
        "reference_roles": roles,
        "category": entry["category"],
        "subjects": [subject_of(file) for file, role in zip(files, roles, strict=True) if role == "subject"],
    }
    joints = folder / keypoints_file(poses[0]) if poses else None
    return {**row, "pose_keypoints": read_joints(joints) if joints is not None and joints.is_file() else None}


def subject_of(file: str) -> str:
    """
    >>> subject_of("subject/2/0/transfer_subjects/a red sports car.png")
    'a red sports car'
    """
    return PurePosixPath(file).name.partition(".")[0]


def read_joints(file: Path) -> list[float] | None:
    """The 51 numbers (x, y, confidence of COCO's 17 joints) of the largest person in a file of joints; none of nobody.

    Args:
        file: ``{"persons": [{"keypoints": [x, y, confidence, …]}, …]}``.

    Raises:
        DataError: it is not there, or has another form.
    """
    try:
        people = [person["keypoints"] for person in json.loads(file.read_text(encoding="utf-8"))["persons"]]
        joints = [[float(number) for number in person] for person in people]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"data: {file}: expected persons with keypoints ({error!r})") from error
    if any(len(person) != 51 for person in joints):
        raise DataError(f"data: {file}: expected 51 numbers for each person, found {[len(each) for each in joints]}")
    return max(joints, key=_area, default=None)


def _area(person: list[float]) -> float:
    """Of the box around the joints that were found."""
    found = [person[place : place + 2] for place in range(0, 51, 3) if person[place + 2] > 0]
    across, down = ([point[axis] for point in found] or [0.0] for axis in (0, 1))
    return (max(across) - min(across)) * (max(down) - min(down))


def write_rows(metadata: Path, folder: Path, size: tuple[int, int]) -> Counter[str]:
    """Write ``metadata.jsonl`` and the canvas beside the references; gives how many rows each category has.

    Args:
        metadata: the published file.
        folder: what the files in it are relative to.
        size: height and width of the pictures to make.

    Raises:
        DataError: the metadata cannot be read, or the folder has rows already.
    """
    target = folder / METADATA
    if target.exists():
        raise DataError(f"data: {target} is there already; move it away to write another")
    try:
        entries = json.loads(metadata.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"data: cannot read {metadata}: {error}") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries) or not entries:
        raise DataError(f"data: {metadata}: expected a list of entries, as benchmark.json is one")
    rows = [row_of(entry, folder) for entry in entries]
    missing = sorted({file for row in rows for file in row["reference_file_names"] if not (folder / file).is_file()})
    if missing:
        raise DataError(f"data: {folder} lacks {len(missing)} references, such as {missing[0]!r}")
    Image.new("RGB", (size[1], size[0]), GREY).save(folder / CANVAS)
    target.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return Counter(row["category"] for row in rows)
