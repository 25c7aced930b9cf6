"""The text that can be read in an image: PP-OCR itself, on rendered text with known answers and on photographs."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from skimage import data

from rewards import OcrText, RewardError, RewardInputs
from rewards.measuring import measured
from rewards.ocr import edit_distance, quotations
from rewards.testing import check_reward

FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans-Bold.ttf"


def written(text, background=None, size=(192, 320), points=40):
    """Text on white, or on a picture: ``[3, H, W]``."""
    image = Image.new("RGB", size[::-1], "white") if background is None else Image.fromarray(background)
    draw = ImageDraw.Draw(image)
    draw.text((16, 20), text, fill="black", stroke_width=2, stroke_fill="white", font=ImageFont.truetype(FONT, points))
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255


def inputs_of(images, wanted, **more):
    return RewardInputs(images=torch.stack(images), extras={"wanted": wanted}, **more)


@pytest.mark.parametrize("text", ["OPEN DAILY", "Fresh bread", "Straße 42"])
def test_rendered_text_is_read(text):
    assert OcrText(text="wanted", match="whole", case="exact")(inputs_of([written(text)], [text])).values.item() == 1


def test_a_wrong_letter_costs_its_share():
    """HOUSE for HORSE: one of five letters, so 0.8; MOUSE shares OUSE with HOUSE only up to the U: 2 of 5 are wrong."""
    image = written("HORSE")
    scores = OcrText(text="wanted")(inputs_of([image] * 3, ["HORSE", "HOUSE", "MOUSE"])).values
    assert scores.tolist() == pytest.approx([1.0, 0.8, 0.6])


def test_other_writing_costs_nothing_within_and_its_share_of_the_whole():
    """FRESH BREAD for BREAD: all of it is there; of ten letters five are too many, so 0.5."""
    inputs = inputs_of([written("FRESH BREAD", points=36)], ["bread"])
    assert OcrText(text="wanted")(inputs).values.item() == 1
    assert OcrText(text="wanted", match="whole")(inputs).values.item() == pytest.approx(0.5)
    assert OcrText(text="wanted", match="whole", case="exact")(inputs).values.item() == pytest.approx(0.0)


def test_text_on_a_photograph_is_read_and_a_photograph_has_none():
    photo = data.coffee()[:160, :380]
    plain = torch.from_numpy(photo.copy()).permute(2, 0, 1).float() / 255
    scores = OcrText(text="wanted")(inputs_of([written("EXIT 12", photo), plain], ["EXIT 12", "EXIT 12"])).values
    assert scores.tolist() == [1.0, 0.0]


def test_a_scanned_page_is_read():
    """A photograph of a page, in grey; its heading stands among much other text."""
    page = torch.from_numpy(data.page()).float().expand(3, -1, -1) / 255
    reward = OcrText(text="wanted")
    scores = reward(inputs_of([page] * 2, ["Region-based segmentation", "xylophone quartz"])).values
    assert scores[0] > 0.95
    assert scores[1] < 0.5


def test_quotations_of_the_prompt_are_wanted_and_a_prompt_without_one_does_not_apply():
    image = written("OPEN")
    prompts = ["make the sign say 'Open'", "make it larger", 'write "OPEN" and “SHUT”']
    found = measured("ocr", OcrText(), RewardInputs(images=torch.stack([image] * 3), prompts=prompts))
    assert found.applicable.tolist() == [True, False, True]
    assert found.values[0] == 1
    assert found.values[1].isnan()
    # OPEN is there; of SHUT no letter: OPEN without SHUT needs 4 changes; the mean of 1 and 0
    assert found.values[2].item() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("it's don't", []),
        ("say 'it's' loudly", ["it's"]),
        ("«Bonjour» et „Guten Tag“ und 「はい」", ["Bonjour", "Guten Tag", "はい"]),
        ('""', []),
    ],
)
def test_quotations(prompt, found):
    assert quotations(prompt) == found


def test_distances_by_hand():
    assert edit_distance("", "abc") == 3
    assert edit_distance("abc", "") == 3
    assert edit_distance("abc", "", within=True) == 3
    assert edit_distance("abc", "xxabcxx", within=True) == 0
    assert edit_distance("abc", "xxabcxx") == 4
    assert edit_distance("flaw", "lawn") == 2


def test_no_image_has_a_say_in_another():
    images = [written("OPEN"), written("SHUT"), written("OPEN")]
    reward, wanted = OcrText(text="wanted"), ["open", "open", "shut"]
    together = reward(inputs_of(images, wanted)).values
    alone = [reward(inputs_of([image], [text])).values.item() for image, text in zip(images, wanted, strict=True)]
    assert together.tolist() == alone
    assert together[0] == 1
    assert together[1:].max() < 0.5


def test_keeps_the_contract():
    """What was read once is not read again, at half a second each; the test above sees that it would be the same."""
    reward, known = OcrText(text="wanted"), {}
    read = reward.read

    def read_once(image):
        pixels = image.float().numpy().tobytes()
        if pixels not in known:
            known[pixels] = read(image)
        return known[pixels]

    reward.read = read_once
    check_reward(reward, size=(32, 32), extras={"wanted": ["one", "two", "three"]})
    assert len(known) == 6


def test_a_row_without_a_wanted_text_does_not_apply():
    inputs = inputs_of([written("OPEN")] * 2, ["open", None])
    assert measured("ocr", OcrText(text="wanted"), inputs).applicable.tolist() == [True, False]


def test_a_column_of_something_else_is_an_error():
    with pytest.raises(RewardError, match="wanted: expected a text in every row"):
        OcrText(text="wanted")(inputs_of([written("OPEN")], [7]))


def test_weights_that_are_not_in_the_package_are_not_downloaded(tmp_path, monkeypatch):
    import rapidocr

    from rewards.ocr import reader

    monkeypatch.setattr(rapidocr, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(RewardError, match="lacks weights that travel in the package"):
        reader(0.123, 1)
