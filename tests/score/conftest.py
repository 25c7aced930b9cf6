"""Rows whose scores can be told by hand, and rewards that do not behave."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from rewards.registry import REWARDS, Entry

LEVELS = (0, 51, 102, 153)  # of 255: drafts of 0, 0.2, 0.4 and 0.6
TARGET = 204  # 0.8


@pytest.fixture
def rows(tmp_path):
    """Four rows of one grey each; all of the image is the mask."""
    place = tmp_path / "rows"
    place.mkdir()
    lines = []
    for number, level in enumerate(LEVELS):
        names = {part: f"{number}-{part}.png" for part in ("draft", "target", "mask")}
        for part, grey in (("draft", level), ("target", TARGET), ("mask", 255)):
            Image.new("L" if part == "mask" else "RGB", (16, 16), (grey,) * 3 if part != "mask" else grey).save(
                place / names[part]
            )
        row = {f"{part}_file_name": name for part, name in names.items()}
        lines.append({"id": f"grey-{number}", "prompt": "brighten it", "pose": "up" if number % 2 else None, **row})
    write(place, lines)
    return place


def write(place, lines):
    (place / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def rewrite(rows):
    """Change one row of the table; ``...`` takes a column out."""

    def change(number, **columns):
        lines = [json.loads(line) for line in (rows / "metadata.jsonl").read_text().splitlines()]
        lines[number] = {key: value for key, value in (lines[number] | columns).items() if value is not ...}
        write(rows, lines)

    return change


@pytest.fixture
def folder(tmp_path):
    """Noise in place of results, one file for each row."""
    place, rng = tmp_path / "results", np.random.default_rng(0)
    place.mkdir()
    for number in range(len(LEVELS)):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(place / f"grey-{number}.png")
    return place


class Brightness:
    """Scores how bright an image is."""

    needs = uses = frozenset()
    range = (0.0, 1.0)

    def __call__(self, inputs):
        return inputs.images.mean(dim=(1, 2, 3))


class Darkness(Brightness):
    """The other way round."""

    def __call__(self, inputs):
        return 1 - super().__call__(inputs)


class Posed(Brightness):
    """Brightness of rows with a pose."""

    uses = frozenset({"pose"})


class Noise(Brightness):
    """Scores at random: it is not deterministic."""

    def __call__(self, inputs):
        return torch.rand(len(inputs.images))


class Batched(Brightness):
    """Scores depend on the rest of the batch."""

    def __call__(self, inputs):
        brightness = super().__call__(inputs)
        return brightness - brightness.mean() + 0.5


class Fragile(Brightness):
    """Fails for what is dark, and gives no number for what is black."""

    def __call__(self, inputs):
        brightness = super().__call__(inputs)
        if ((brightness > 0.1) & (brightness < 0.3)).any():
            raise OSError("too dark to read")
        return torch.where(brightness == 0, torch.nan, brightness)


class Judge(Brightness):
    """Stands for a language model that is asked for a number: it answers in words, and obeys what it reads."""

    needs = frozenset({"prompts"})
    range = (0.0, 10.0)

    def __call__(self, inputs):
        answers = [self.answer(image) for image in inputs.images]
        return torch.tensor([float(answer.removeprefix("score: ")) for answer in answers])

    def answer(self, image):
        if image[0, 0].tolist() == image[0, 0].round().tolist() and image[0, 0].sum() == 8:
            return "score: 10"  # what the picture says that it should answer
        brightness = image.mean().item()
        return "I cannot rate people" if brightness < 0.1 else "score: 11" if brightness > 0.55 else "score: 4"


@pytest.fixture
def known(monkeypatch):
    """The rewards of this file, by name."""
    from dataclasses import dataclass

    @dataclass(frozen=True, kw_only=True)
    class Nothing:
        """No settings."""

    for made in (Brightness, Darkness, Posed, Noise, Batched, Fragile, Judge):
        entry = Entry(settings=Nothing, place=f"{__name__}:{made.__name__}", needs=made.needs, uses=made.uses)
        monkeypatch.setitem(REWARDS, made.__name__.lower(), entry)
