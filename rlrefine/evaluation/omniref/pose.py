"""Has a person the pose of a reference? OmniRef-Bench's composite, from joints that were found before.

Shapes: 17 joints of COCO, each x, y and confidence.

Joints are read from files, since their estimator, AlphaPose, cannot be installed beside this project.

Differs from the released code: a picture in which nobody was found scores 0, as an undetected subject does; there it is
left out of the mean, so that a model gains by losing the person. Where torso or person has no extent, nothing is
within reach of the threshold; there it is a division by zero.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from rewards import Failure, RewardInputs, Scores
from rlrefine.data.omniref import read_joints
from rlrefine.errors import DataError
from rlrefine.evaluation.benchmark import PICTURE
from rlrefine.evaluation.scorers import NotGivenError

HEAD, BODY = [0.026, 0.025, 0.025, 0.035, 0.035], [0.079, 0.072, 0.062, 0.107, 0.087, 0.089]
SPREAD = np.array(HEAD + [each for joint in BODY for each in (joint, joint)])  # COCO's OKS has twice as much
LIMBS = (
    *((0, 1), (0, 2), (1, 3), (2, 4), (0, 5), (0, 6), (5, 7), (7, 9), (6, 8), (8, 10), (5, 6)),
    *((5, 11), (6, 12), (11, 12), (11, 13), (13, 15), (12, 14), (14, 16)),
)
SHOULDER, HIP = 5, 12  # the torso goes from the left one to the right one


class PoseConsistency:
    """Composite of how alike two poses are, from 0 to 1.

        s = 0.2·OKS + 0.2·PCK@0.5 + 0.1·PCK@0.2 + 0.5·limbs

    To a row without a pose reference, or without its joints, the measure does not apply.

    Args:
        keypoints: folder of the joints of each picture, beside the pictures: ``FOLDER/NAME.json`` for ``NAME.png``,
            with ``persons`` of 51 ``keypoints`` each, and an empty list where nobody was found.

    Raises:
        NotGivenError: no folder is named.

    Reference: OmniRef-Bench of DyRef, arXiv 2606.26947, ``consistency_check.py`` of its released code.
    """

    needs: frozenset[str] = frozenset()
    uses = frozenset({"references.pose", "pose_keypoints", PICTURE})
    range = (0.0, 1.0)

    def __init__(self, *, keypoints: str | None = None) -> None:
        if keypoints is None:
            raise NotGivenError(
                "joints of the pictures, from an estimator such as AlphaPose: pose.keypoints=FOLDER beside the pictures"
            )
        self.keypoints = keypoints

    def __call__(self, inputs: RewardInputs) -> Scores:
        values, failures = torch.zeros(len(inputs.images)), {}
        for sample in range(len(inputs.images)):
            row = sample // inputs.group_size
            picture = Path(inputs.extras[PICTURE][row])
            file = picture.parent / self.keypoints / f"{picture.stem}.json"
            try:
                found = read_joints(file)
            except DataError as error:
                failures[sample] = Failure("keypoints", str(error))
                continue
            if found is not None:
                values[sample] = pose_likeness(as_pose(found), as_pose(inputs.extras["pose_keypoints"][row]))
        return Scores(values=values, failures=failures)


def as_pose(joints: Sequence[float]) -> np.ndarray:
    """51 numbers as ``[17, 3]``."""
    return np.array(joints, dtype=np.float64).reshape(17, 3)


def pose_likeness(first: np.ndarray, second: np.ndarray) -> float:
    """The composite of two poses ``[17, 3]``.

    Joints count that have a confidence above 0 in both; without any the pose is none of the other's: 0.
    """
    both = (first[:, 2] > 0) & (second[:, 2] > 0)
    near_17, far = distances(first, second)
    if not both.any() or not np.isfinite(near_17).all():
        return 0.0
    alike = np.exp(-(near_17**2) / (2 * SPREAD**2))[both].mean()
    near = [(near_17[both] < share * far).mean() for share in (0.5, 0.2)]
    return float(0.2 * alike + 0.2 * near[0] + 0.1 * near[1] + 0.5 * limb_likeness(first, second))


def distances(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, float]:
    """How far apart joints are ``[17]``, and the length of the torso, both with the poses laid over each other."""
    one, other = aligned(first), aligned(second)
    torso = [float(np.linalg.norm(pose[SHOULDER] - pose[HIP])) for pose in (one, other)]
    return np.linalg.norm(one - other, axis=1), sum(torso) / 2


def aligned(pose: np.ndarray) -> np.ndarray:
    """Joints ``[17, 2]`` around their mean, in diagonals of their box; those not found, at (0, 0), take part, as there.

    A pose without extent is NaN.
    """
    place = pose[:, :2] - pose[:, :2].mean(axis=0)
    diagonal = float(np.linalg.norm(place.max(axis=0) - place.min(axis=0)))
    return place / diagonal if diagonal else np.full_like(place, np.nan)


def limb_likeness(first: np.ndarray, second: np.ndarray) -> float:
    """Mean of (cos + 1)/2 over the limbs whose joints were found in both, as they lie in the pictures, or 0."""
    found = []
    for start, end in LIMBS:
        limbs = [pose[end, :2] - pose[start, :2] for pose in (first, second)]
        lengths = [float(np.linalg.norm(limb)) for limb in limbs]
        if min(pose[joint, 2] for pose in (first, second) for joint in (start, end)) > 0 and min(lengths) > 0:
            cosine = float(limbs[0] @ limbs[1]) / (lengths[0] * lengths[1])
            found.append((min(max(cosine, -1.0), 1.0) + 1) / 2)
    return sum(found) / len(found) if found else 0.0
