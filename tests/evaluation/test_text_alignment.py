"""Pictures and texts on a random CLIP of the real classes, against what the class itself computes."""

import pytest
import torch
from transformers import AutoTokenizer, CLIPModel

from rewards import RewardError, RewardInputs
from rewards.preparation import prepare, read_preparation
from rewards.testing import check_reward
from rlrefine.evaluation.text_alignment import TextAlignment, TextDirection, worded

TEXTS = ["house made out of gold", "tree made out of snow"]


@pytest.fixture(scope="module")
def theirs(clip_folder):
    """Features and logits of pictures and texts, straight from the class."""
    model = CLIPModel.from_pretrained(clip_folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(clip_folder)

    def look(images, texts):
        tokens = tokenizer(texts, padding=True, return_tensors="pt")
        with torch.no_grad():
            return model(pixel_values=prepare(images, read_preparation(clip_folder)), **tokens)

    return look


def inputs_of(images=None, **kwargs):
    extras = {"input": ["house", "tree"], "style": ["gold", "snow"]}
    given = {"drafts": torch.rand(2, 3, 32, 32), "prompts": TEXTS, "extras": extras}
    return RewardInputs(images=torch.rand(4, 3, 32, 32) if images is None else images, **given | kwargs)


def test_alignment_and_pick_score_are_the_logits_of_the_class(clip_folder, theirs):
    inputs, folder = inputs_of(), str(clip_folder)
    logits = theirs(inputs.images, TEXTS).logits_per_image
    own = torch.stack([logits[0, 0], logits[1, 0], logits[2, 1], logits[3, 1]])  # two samples of each row
    scale = CLIPModel.from_pretrained(clip_folder).logit_scale.exp()
    torch.testing.assert_close(TextAlignment(checkpoint=folder, scaled=True)(inputs), own)
    torch.testing.assert_close(TextAlignment(checkpoint=folder)(inputs), own / scale)
    asked = TextAlignment(checkpoint=folder, text="{input} made out of {style}")
    torch.testing.assert_close(asked(inputs), own / scale)
    assert asked.needs == {"input", "style"}


def test_every_picture_has_the_text_of_its_row_and_not_of_the_first(clip_folder):
    """The released PickScore takes the first row of the matrix: the first text for all pictures of the batch."""
    inputs = inputs_of(torch.rand(1, 3, 32, 32).repeat(2, 1, 1, 1))
    first, second = TextAlignment(checkpoint=str(clip_folder))(inputs)
    assert abs(first - second) > 1e-3


def test_direction_by_the_features_of_the_class(clip_folder, theirs):
    inputs = inputs_of()
    measure = TextDirection(checkpoint=str(clip_folder), text="{prompt}", before="{input}")
    edited = theirs(inputs.images, TEXTS).vision_model_output.pooler_output
    found = theirs(inputs.drafts, [*TEXTS, "house", "tree"])
    draft, texts = found.vision_model_output.pooler_output, found.text_model_output.pooler_output
    expected = [
        torch.cosine_similarity(edited[b] - draft[b // 2], texts[b // 2] - texts[2 + b // 2], dim=0) for b in range(4)
    ]
    scores = measure(inputs)
    torch.testing.assert_close(scores.values, torch.stack(expected), atol=1e-5, rtol=0)
    assert scores.applicable.all()


def test_what_did_not_change_has_no_direction(clip_folder):
    drafts = torch.rand(2, 3, 32, 32)
    images = torch.cat([drafts[:1], torch.rand(1, 3, 32, 32)])
    measure = TextDirection(checkpoint=str(clip_folder), text="{input}", before="{input}")
    assert not measure(inputs_of(images, drafts=drafts)).applicable.any()
    measure = TextDirection(checkpoint=str(clip_folder), text="{prompt}", before="{input}")
    assert measure(inputs_of(images, drafts=drafts)).applicable.tolist() == [False, True]


def test_the_right_way_is_one_and_the_wrong_way_minus_one(clip_folder, monkeypatch):
    measure = TextDirection(checkpoint=str(clip_folder), text="{style}", before="{input}")
    said = {"house": [0.0, 1.0], "tree": [0.0, 1.0], "gold": [3.0, 1.0], "snow": [3.0, 1.0]}
    monkeypatch.setattr(
        measure.encoder, "texts", lambda texts, device, unit: torch.tensor([said[text] for text in texts])
    )
    monkeypatch.setattr(measure.encoder, "images", lambda images, unit: images[:, :2, 0, 0])
    # the text moves by (3, 0); pictures by (0.5, 0), (−0.5, 0), (0, 0.5) and (0.5, 0.5): 1, −1, 0, 1/√2
    moved = torch.tensor([[0.5, 0.0], [-0.5, 0.0], [0.0, 0.5], [0.5, 0.5]])
    images = torch.zeros(4, 3, 32, 32)
    images[:, :2, 0, 0] = 0.5 + moved
    scores = measure(inputs_of(images, drafts=torch.full((2, 3, 32, 32), 0.5)))
    torch.testing.assert_close(scores.values, torch.tensor([1.0, -1.0, 0.0, 0.5**0.5]))


def test_a_row_without_words_is_an_error_that_names_it():
    inputs = inputs_of(extras={"input": ["house", None], "style": ["gold", "snow"]})
    assert worded(inputs, "{prompt}") == TEXTS
    with pytest.raises(RewardError, match="needs input in words, and row 1 has None"):
        worded(inputs, "{input} made out of {style}")


def test_texts_that_are_too_long_are_cut_off(clip_folder):
    inputs = inputs_of(prompts=["house " * 200, "tree"])
    assert torch.isfinite(TextAlignment(checkpoint=str(clip_folder))(inputs)).all()


def test_a_folder_without_a_vocabulary_is_refused(network_folder):
    with pytest.raises(RewardError, match=r"has no tokenizer\.json: the network's vocabulary"):
        TextAlignment(checkpoint=str(network_folder("clip")))


def test_keeps_the_contract_of_rewards(clip_folder):
    check_reward(TextAlignment(checkpoint=str(clip_folder)))
    check_reward(TextAlignment(checkpoint=str(clip_folder), scaled=True))
