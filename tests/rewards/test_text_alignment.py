"""Rewards that compare images with texts, on random networks of the real classes, against transformers' own calls."""

import shutil

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel, AutoProcessor, AutoTokenizer

from rewards import EditDirection, PickScore, RewardError, RewardInputs, TextAlignment
from rewards.testing import check_reward
from tests.rewards.random_texts import write

PROMPTS = ["a red cat", "two dogs and 7 birds"]
CAPTIONS = {"caption_before": ["cat", "dog", "bird"], "caption_after": ["red cat", "big dog", "no bird"]}


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory):
    made = {}

    def folder(kind):
        if kind not in made:
            made[kind] = write(kind, tmp_path_factory.mktemp(f"{kind}-texts"))
        return made[kind]

    return folder


def upstream(folder, kind, images, texts):
    """Embeddings of images and texts by transformers' automatic classes."""
    model, processor = AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    image_processor = getattr(processor, "image_processor", processor)
    pixels = image_processor(images=list(images), do_rescale=False, return_tensors="pt")["pixel_values"]
    tokenizer, how = AutoTokenizer.from_pretrained(folder), {"padding": True}
    if kind == "siglip2":
        how, texts = {"padding": "max_length", "max_length": 24, "truncation": True}, [text.lower() for text in texts]
    tokens = tokenizer(texts, return_tensors="pt", **how)
    if kind == "siglip2":
        tokens = {"input_ids": tokens["input_ids"]}
    with torch.no_grad():
        return (
            F.normalize(model.get_image_features(pixel_values=pixels).pooler_output, dim=-1),
            F.normalize(model.get_text_features(**tokens).pooler_output, dim=-1),
            model.logit_scale.exp(),
        )


def images_of(count, size=(40, 48)):
    return 0.25 + 0.5 * torch.rand(count, 3, *size)


@pytest.mark.parametrize("kind", ["clip", "siglip2"])
def test_alignment_is_the_cosine_of_transformers(kind, text_folder):
    images, folder = images_of(6), text_folder(kind)
    found = TextAlignment(encoder=kind, checkpoint=str(folder), batch=4)(RewardInputs(images=images, prompts=PROMPTS))
    e_BD, t_PD, _ = upstream(folder, kind, images, PROMPTS)
    torch.testing.assert_close(found, (e_BD * t_PD.repeat_interleave(3, dim=0)).sum(-1), atol=1e-5, rtol=0)
    assert found.std() > 1e-3


def test_pick_score_is_the_logit_of_transformers(text_folder):
    images, folder = images_of(4), text_folder("clip")
    found = PickScore(checkpoint=str(folder))(RewardInputs(images=images, prompts=PROMPTS))
    e_BD, t_PD, scale = upstream(folder, "clip", images, PROMPTS)
    assert scale.item() == pytest.approx(14.285, abs=0.01)  # exp(2.6592), with which CLIP's training begins
    torch.testing.assert_close(found, scale * (e_BD * t_PD.repeat_interleave(2, dim=0)).sum(-1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["clip", "siglip2"])
def test_direction_is_the_cosine_of_the_differences(kind, text_folder):
    images, drafts, folder = images_of(6), images_of(3), text_folder(kind)
    inputs = RewardInputs(images=images, drafts=drafts, extras=CAPTIONS)
    found = EditDirection(encoder=kind, checkpoint=str(folder))(inputs)
    e_BD, before_PD, _ = upstream(folder, kind, images, CAPTIONS["caption_before"])
    x_PD, after_PD, _ = upstream(folder, kind, drafts, CAPTIONS["caption_after"])
    change_BD, wanted_PD = e_BD - x_PD.repeat_interleave(2, dim=0), after_PD - before_PD
    expected = F.cosine_similarity(change_BD, wanted_PD.repeat_interleave(2, dim=0), dim=-1)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


class Known:
    """An encoder by hand: brightness and its complement of an image, and of texts what is given."""

    def __init__(self, texts):
        self.known = texts

    def images(self, images):
        level = images.mean(dim=(1, 2, 3))
        return F.normalize(torch.stack([level, 1 - level], dim=-1), dim=-1)

    def texts(self, texts, device):
        return F.normalize(torch.tensor([self.known[text] for text in texts]), dim=-1)


def test_direction_by_hand(text_folder):
    """From (0, 1) to (1, 0) is the direction (1, −1)/√2; the images go there, not at all, and half of the way."""
    reward = EditDirection(checkpoint=str(text_folder("clip")))
    reward.encoder = Known({"dark": (0.0, 1.0), "light": (1.0, 0.0)})
    images = torch.stack([torch.full((3, 8, 8), level) for level in (1.0, 0.0, 0.5)])
    captions = {"caption_before": ["dark"], "caption_after": ["light"]}
    found = reward(RewardInputs(images=images, drafts=torch.zeros(1, 3, 8, 8), extras=captions))
    # (0.5, 0.5)/‖·‖ − (0, 1) = (0.7071, −0.2929), of length 0.7654; its cosine is 1/√2·(1.0)/0.7654 = 0.9239
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0, 0.9239]), atol=1e-4, rtol=0)


def test_texts_that_are_too_long_are_cut_off_as_upstream_does(text_folder):
    """24 tokens with beginning and end: the letters from the 23rd on have no say."""
    reward = TextAlignment(checkpoint=str(text_folder("clip")))
    images, text = images_of(1), "abcdefghijklmnopqrstuvw"
    scores = [reward(RewardInputs(images=images, prompts=[text[:22] + more])) for more in ("", "x", "yz")]
    assert torch.equal(scores[1], scores[2])
    assert not torch.equal(scores[1], reward(RewardInputs(images=images, prompts=["z" + text + "x"])))


def test_siglip_reads_lower_case_alone(text_folder):
    reward, images = TextAlignment(encoder="siglip2", checkpoint=str(text_folder("siglip2"))), images_of(1)
    scores = [reward(RewardInputs(images=images, prompts=[text])) for text in ("A Red Cat", "a red cat", "a bed cat")]
    assert torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[0], scores[2])


def test_a_caption_in_a_column_takes_the_place_of_the_prompt(text_folder):
    reward = TextAlignment(checkpoint=str(text_folder("clip")), text="caption")
    assert reward.needs == {"caption"}
    images = images_of(2)
    by_column = reward(RewardInputs(images=images, prompts=["x", "y"], extras={"caption": PROMPTS}))
    by_prompt = TextAlignment(checkpoint=str(text_folder("clip")))(RewardInputs(images=images, prompts=PROMPTS))
    assert torch.equal(by_column, by_prompt)
    with pytest.raises(RewardError, match=r"caption: expected a text in every row, found None in row 1"):
        reward(RewardInputs(images=images, extras={"caption": ["cat", None]}))


@pytest.mark.parametrize("make", [
    lambda folder: TextAlignment(checkpoint=str(folder("clip"))),
    lambda folder: TextAlignment(encoder="siglip2", checkpoint=str(folder("siglip2"))),
    lambda folder: PickScore(checkpoint=str(folder("clip"))),
])  # fmt: skip
def test_keeps_the_contract(make, text_folder):
    check_reward(make(text_folder))


def test_direction_keeps_the_contract(text_folder):
    check_reward(EditDirection(checkpoint=str(text_folder("clip"))), extras=CAPTIONS)


def test_captions_without_a_direction_are_an_error(text_folder):
    reward = EditDirection(checkpoint=str(text_folder("clip")))
    captions = {"caption_before": ["cat", "dog"], "caption_after": ["red cat", "dog"]}
    inputs = RewardInputs(images=images_of(2), drafts=images_of(2), extras=captions)
    with pytest.raises(RewardError, match="of row 1 are the same to the network"):
        reward(inputs)


def test_a_missing_vocabulary_is_one_error(text_folder, tmp_path):
    folder = shutil.copytree(text_folder("clip"), tmp_path / "clip")
    for name in ("tokenizer.json", "vocab.json"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(RewardError, match=r"has no tokenizer.json: the network's vocabulary"):
        TextAlignment(checkpoint=str(folder))


def test_weights_that_are_not_there_are_described_with_their_licence():
    with pytest.raises(RewardError, match="its card names no licence") as caught:
        PickScore()
    assert "yuvalkirstain/PickScore_v1" in str(caught.value)
