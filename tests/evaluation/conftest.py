"""Random networks with texts, and rows of a material edit whose values can be told by hand."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextConfig, CLIPVisionConfig

from pretraining.components import clip_tokenizer
from tests.rewards.conftest import network_folder as network_folder
from tests.rewards.random_networks import SMALL

WORDS = ["house made out of gold", "tree made out of snow", "turn the house into gold"]
SIDE = 32


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    """A whole CLIP with random weights, its tokenizer and its image processor; tests must not change it."""
    folder, tokenizer = tmp_path_factory.mktemp("clip-text"), clip_tokenizer(WORDS)
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    vision = CLIPVisionConfig(**SMALL, image_size=32, patch_size=8, projection_dim=16)
    text = CLIPTextConfig(**SMALL, vocab_size=len(tokenizer), projection_dim=16, **ids)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16))
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def grey(level, side=SIDE):
    return Image.new("RGB", (side, side), (level,) * 3)


@pytest.fixture
def rows(tmp_path):
    """Four rows: a grey draft, a mask of its upper half, a style image of noise."""
    place, rng = tmp_path / "rows", np.random.default_rng(0)
    place.mkdir()
    Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(place / "style.png")
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    mask[: SIDE // 2] = 255
    Image.fromarray(mask).save(place / "mask.png")
    lines = []
    for number in range(4):
        grey(51 * number).save(place / f"{number}-draft.png")
        row = {"id": f"row-{number}", "draft_file_name": f"{number}-draft.png", "mask_file_name": "mask.png"}
        row |= {"reference_file_names": ["style.png"], "reference_roles": ["style"]}
        words = {"prompt": "turn the house into gold", "input": "house", "style": "gold"}
        lines.append(row | words | {"place": "town" if number % 2 else "wood"})
    (place / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return place


@pytest.fixture
def edited(tmp_path):
    """Pictures of these rows: each draft a fifth brighter, above and below alike."""
    place = tmp_path / "edited"
    place.mkdir()
    for number in range(4):
        grey(51 * (number + 1)).save(place / f"row-{number}.png")
    return place
