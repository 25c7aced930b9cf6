"""A scorer's view of edited pictures beside its view of real ones: do those who are good in the one shine in the other?

Pictures of two folders are paired by their names, or by the rows that they belong to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rewards import Reward, RewardError, RewardInputs
from rewards.measuring import measured
from rlrefine.data.build import open_rows
from rlrefine.data.folder import METADATA, row_name
from rlrefine.data.images import fit, read_image, to_tensor
from rlrefine.data.loading import Rows
from rlrefine.data.sources import parse_source
from rlrefine.errors import DataError, UsageError
from rlrefine.evaluation.correlation import FEWEST, Correlated, correlate
from rlrefine.evaluation.scorers import Chosen, Scorers, build
from rlrefine.evaluation.subjects import named_pictures
from rlrefine.score.pictures import Pictures, pictures_in
from rlrefine.training.progress import Reporter
from rlrefine.training.scoring import reward_inputs


@dataclass(frozen=True, kw_only=True)
class Side:
    """The pictures of one folder by name, with what is known of them.

    Args:
        pictures: of the rows that they belong to; none where they stand for themselves.
        size: height and width that pictures without rows are brought to; none leaves each as large as it is.
        places: name → number of the row.
    """

    folder: Path
    files: Mapping[str, Path]
    pictures: Pictures | None = None
    size: tuple[int, int] | None = None
    places: Mapping[str, int] = field(default_factory=dict)

    def inputs(self, name: str, device: torch.device) -> RewardInputs:
        """One picture with its conditions.

        Raises:
            DataError: a file cannot be read, or does not fit to its row.
        """
        file = self.files[name]
        if self.pictures is None:
            image = read_image(file, str(file))
            return RewardInputs(images=to_tensor(fit(image, self.size) if self.size else image)[None].to(device))
        number = self.places[name]
        batch = self.pictures.rows.batch([number])
        return reward_inputs(batch, self.pictures.of(batch, [number]).to(device))


@dataclass(frozen=True, kw_only=True)
class Study:
    """What was found of two folders.

    Args:
        names: of the pairs.
        alone: pictures of each folder without a partner.
        scores: scorer → ``[2, N]``, edited and real; NaN where one of the two has none.
        correlated: scorer → over the pairs that have both.
    """

    folders: tuple[Path, Path]
    names: Sequence[str]
    alone: tuple[int, int]
    scores: Mapping[str, np.ndarray]
    correlated: Mapping[str, Correlated]


def open_side(folder: Path, data: str | None, size: tuple[int, int] | None) -> Side:
    """The pictures of a folder.

    Args:
        data: rows that they are named after; else the folder's own, if it has any.

    Raises:
        UsageError: there is no such folder.
        DataError: two files have one name, or its own rows name no picture.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: expected a folder of pictures, there is no such folder")
    rows = _rows(folder, data, size)
    own = named_pictures(folder) if data is None and rows is not None else {}
    if own:
        files = own
    else:
        found = pictures_in(folder)
        several = next((names for names in found.values() if len(names) > 1), None)
        if several is not None:
            raise DataError(f"data: {folder} has {several[0].name} and {several[1].name}, expected one of a name")
        files = {name: files[0] for name, files in found.items()}
    if rows is None:
        return Side(folder=folder, files=files, size=size)
    places = {row_name(row, number): number for number, row in enumerate(rows.columns)}
    known = {name: file for name, file in files.items() if name in places}
    pictures = Pictures(kind=str(folder), rows=rows, files=[known.get(name, Path()) for name in places])
    return Side(folder=folder, files=known, pictures=pictures, places=places)


def _rows(folder: Path, data: str | None, size: tuple[int, int] | None) -> Rows | None:
    if data is None:
        return Rows(folder, size) if (folder / METADATA).is_file() else None
    of = parse_source(data).folder
    return Rows(of, size) if of else open_rows(data, size or (64, 64))


def study(sides: tuple[Side, Side], chosen: Chosen, report: Reporter) -> Study:
    """Score all pairs, and correlate.

    Raises:
        DataError: there are fewer than 4 pairs, or a scorer gives one and the same value.
        RewardError: a scorer cannot be had, needs what is not there, or fails for too many pictures.
    """
    names = sorted(sides[0].files.keys() & sides[1].files.keys())
    if len(names) < FEWEST:
        have = " and ".join(f"{side.folder} {len(side.files)}" for side in sides)
        raise DataError(f"data: expected at least {FEWEST} pairs of one name, found {len(names)}; of pictures, {have}")
    scorers = [_scorers(side, names, chosen) for side in sides]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scores = {name: np.full((2, len(names)), np.nan) for name in scorers[0].rewards}
    why: dict[str, str] = {}
    for which, (side, its) in enumerate(zip(sides, scorers, strict=True)):
        for number, name in enumerate(names):
            report.phase(f"scoring {side.folder.name}", number, len(names))
            inputs = side.inputs(name, device)
            for label, reward in its.rewards.items():
                value, failure = _score(label, reward, inputs)
                scores[label][which, number] = its.measures[label].factor * value
                if failure is not None:
                    why.setdefault(label, f"{side.folder}/{name}: {failure}")
    correlated = {label: _correlate(label, both, why.get(label)) for label, both in scores.items()}
    alone = (len(sides[0].files) - len(names), len(sides[1].files) - len(names))
    folders = (sides[0].folder, sides[1].folder)
    return Study(folders=folders, names=names, alone=alone, scores=scores, correlated=correlated)


def _scorers(side: Side, names: Sequence[str], chosen: Chosen) -> Scorers:
    if side.pictures is not None:
        return build(chosen, [side.pictures.rows.columns[side.places[name]] for name in names])
    scorers = build(chosen, [])
    for label, reward in scorers.rewards.items():
        if reward.needs:
            raise RewardError(
                f"{label} needs {' and '.join(sorted(reward.needs))}, and {side.folder} has pictures alone; give --data"
            )
    return scorers


def _score(label: str, reward: Reward, inputs: RewardInputs) -> tuple[float, str | None]:
    with torch.no_grad():
        found = measured(label, reward, inputs)
    return float(found.values[0]), found.failures[0].message if found.failures else None


def _correlate(label: str, both: np.ndarray, why: str | None) -> Correlated:
    edited_N, real_N = both[:, ~np.isnan(both).any(axis=0)]
    try:
        return correlate(edited_N, real_N)
    except ValueError as error:
        first = f"; {why}" if why else ""
        raise DataError(f"{label} has no correlation: {error} over {len(edited_N)} scored pairs{first}") from error


def as_mapping(found: Study) -> dict[str, Any]:
    """Everything in plain values."""
    return {
        "edited": str(found.folders[0]),
        "real": str(found.folders[1]),
        "pairs": len(found.names),
        "without_partner": {"edited": found.alone[0], "real": found.alone[1]},
        "scorers": {
            label: {
                **asdict(its),
                "without_score": int(np.isnan(found.scores[label]).any(axis=0).sum()),
                "mean": dict(zip(("edited", "real"), np.nanmean(found.scores[label], axis=1).tolist(), strict=True)),
            }
            for label, its in found.correlated.items()
        },
    }
