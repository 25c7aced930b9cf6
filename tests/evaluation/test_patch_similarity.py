"""SPIE's patch similarities on random networks of the real classes, and the mistake in its released code."""

import pytest
import torch
import torch.nn.functional as F
from transformers import CLIPVisionModelWithProjection

from rewards import RewardInputs, Scores
from rewards.preparation import prepare
from rewards.testing import check_reward
from rlrefine.evaluation.patch_similarity import PatchSimilarity

ENCODERS = ("dreamsim", "dinov2", "clip")
SIDE = 32


@pytest.fixture
def measure_of(network_folder, dreamsim_folder):
    def make(encoder="clip", to="style", **kwargs):
        folder = dreamsim_folder("dino_vitb16_patch") if encoder == "dreamsim" else network_folder(encoder)
        return PatchSimilarity(encoder=encoder, to=to, checkpoint=str(folder), **kwargs)

    return make


def upper(rows=2):
    mask = torch.zeros(rows, 1, SIDE, SIDE)
    mask[:, :, : SIDE // 2] = 1
    return mask


def inputs_of(images, drafts, styles, **kwargs):
    return RewardInputs(
        images=images, drafts=drafts, references=[[style] for style in styles], **{"masks": upper(len(drafts))} | kwargs
    )


def every_pair(first_NLD, second_NLD, inside_NL, other_NL):
    """Mean similarity of each cell of one region with each of another, pair by pair, as the released code does it."""
    pairs = F.cosine_similarity(first_NLD[:, :, None], second_NLD[:, None], dim=-1)
    each = (pairs * other_NL[:, None]).sum(-1) / other_NL[:, None].sum(-1)
    return (each * inside_NL).sum(-1) / inside_NL.sum(-1)


def regions(cells_NLD):
    side = round(cells_NLD.shape[1] ** 0.5)
    inside = F.interpolate(upper(len(cells_NLD)), size=(side, side), mode="nearest").flatten(1)
    return inside, torch.ones_like(inside)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_is_the_mean_over_all_pairs_of_cells(encoder, measure_of):
    images, drafts, styles = (torch.rand(2, 3, SIDE, SIDE) for _ in range(3))
    inputs, to_style, to_draft = inputs_of(images, drafts, styles), measure_of(encoder), measure_of(encoder, "draft")
    edited, draft, style = (to_style.likeness.encoder.cells(some) for some in (images, drafts, styles))
    inside, everywhere = regions(edited)
    expected = every_pair(edited, style, inside, everywhere)
    torch.testing.assert_close(to_style(inputs), expected, atol=2e-6, rtol=0)
    expected = every_pair(edited, draft, 1 - inside, 1 - inside)
    torch.testing.assert_close(to_draft(inputs).values, expected, atol=2e-6, rtol=0)
    assert to_draft(inputs).applicable.all()


def test_cells_of_clip_are_projected_as_its_summary_is(measure_of, network_folder):
    encoder, images = measure_of().likeness.encoder, torch.rand(2, 3, SIDE, SIDE)
    network = CLIPVisionModelWithProjection.from_pretrained(network_folder("clip")).eval()
    with torch.no_grad():
        pixels = prepare(images, encoder.encoder.preparation, whole=True)
        hidden = network.vision_model(pixel_values=pixels).last_hidden_state
        theirs = network.visual_projection(network.vision_model.post_layernorm(hidden[:, 1:]))
        summary = network(pixel_values=pixels).image_embeds
    torch.testing.assert_close(encoder.cells(images), theirs)
    # the control: the token before the grid, treated alike, is CLIP's own summary
    own = network.visual_projection(network.vision_model.post_layernorm(hidden[:, 0]))
    torch.testing.assert_close(own, summary)


def released(cells, images, drafts, styles):
    """Both CLIP similarities by the slices of the released code: pictures go in as input, edited, style, and their
    features come out as if it were edited, style, input."""
    rows = len(images)
    features = cells(torch.cat([drafts, images, styles]))
    edited, style, draft = features[:rows], features[rows : 2 * rows], features[2 * rows :]
    inside, everywhere = regions(edited)
    return every_pair(edited, style, inside, everywhere), every_pair(edited, draft, 1 - inside, 1 - inside)


def test_the_released_slices_compare_other_pictures(measure_of):
    """Two edits of one draft: in the first the region is the style image itself, in the second nothing was changed."""
    draft, gold = torch.zeros(1, 3, SIDE, SIDE), torch.tensor([1.0, 0.8, 0.1])[:, None, None]
    style = (gold * (0.9 + 0.1 * torch.rand(SIDE, SIDE)))[None]
    done = torch.where(upper(1) > 0, style, draft)
    images, drafts, styles = torch.cat([done, draft]), draft.repeat(2, 1, 1, 1), style.repeat(2, 1, 1, 1)
    to_style, to_draft = measure_of(), measure_of(to="draft")
    cells = to_style.likeness.encoder.cells
    inputs = inputs_of(images, drafts, styles)
    style_2, rest_2 = released(cells, images, drafts, styles)
    ours_2 = to_style(inputs)
    # theirs is how near the draft's region is to the edited picture, and best where nothing was done
    inside, everywhere = regions(cells(drafts))
    torch.testing.assert_close(style_2, every_pair(cells(drafts), cells(images), inside, everywhere), atol=2e-6, rtol=0)
    assert style_2[1] > style_2[0] + 0.1
    # ours prefers the edit, by as much as its cells are nearer to the style's
    assert ours_2[0] > ours_2[1] + 0.1
    # their similarity to the input never sees the edited picture: both edits have one number
    torch.testing.assert_close(rest_2[0], rest_2[1])
    assert (to_draft(inputs).values - rest_2).abs().max() > 0.1


def test_nothing_outside_is_no_similarity_to_the_draft(measure_of):
    images, drafts, styles = (torch.rand(2, 3, SIDE, SIDE) for _ in range(3))
    masks = upper()
    masks[1] = 1
    scores = measure_of(to="draft")(inputs_of(images, drafts, styles, masks=masks))
    assert scores.applicable.tolist() == [True, False]
    assert not scores.failures


def test_an_object_that_is_not_found_is_a_failure(measure_of, network_folder, monkeypatch):
    places = {"detector": str(network_folder("grounding_dino")), "segmenter": str(network_folder("sam2"))}
    measure = measure_of(to="draft", regions="detected", object="input", **places)
    assert measure.needs == {"drafts", "input"}

    def find(image, name):
        return None if name == "unicorn" else upper(1)[0]

    monkeypatch.setattr(measure.likeness.find, "find", find)
    images, drafts, styles = (torch.rand(2, 3, SIDE, SIDE) for _ in range(3))
    names = {"input": ["house", "unicorn"], "style": ["gold", "gold"]}
    scores = measure(inputs_of(images, drafts, styles, masks=None, extras=names))
    assert isinstance(scores, Scores)
    assert (sorted(scores.failures), scores.failures[1].kind) == ([1], "undetected")
    torch.testing.assert_close(scores.values[0], measure_of(to="draft")(inputs_of(images, drafts, styles)).values[0])


@pytest.mark.parametrize("encoder", ENCODERS)
def test_keeps_the_contract_of_rewards(encoder, measure_of):
    check_reward(measure_of(encoder))
    check_reward(measure_of(encoder, "draft"))
