"""Under which terms rewards stand: their code, and the weights that they look for by default. No torch here.

What a licence says in full is for its text to say; this is no legal advice. Weights of your own stand under your terms.
"""

from collections.abc import Mapping
from dataclasses import dataclass

OURS = "Apache-2.0, as this project"
UNKNOWN = "not known"
DREAMSIM = (
    "DreamSim is MIT-licensed and names no other licence for its weights; "
    "of what they build on, DINO and SynCLR are Apache-2.0, CLIP and OpenCLIP MIT"
)

TORCHVISION = "torchvision is BSD-3-Clause and names no other licence for its weights, which ImageNet trained"

MODELS: Mapping[str, str] = {
    "dreamsim": DREAMSIM,
    "depth-anything/Depth-Anything-V2-Small-hf": "Apache-2.0",
    "depth-anything/Depth-Anything-V2-Base-hf": "CC-BY-NC-4.0, not for commercial use",
    "depth-anything/Depth-Anything-V2-Large-hf": "CC-BY-NC-4.0, not for commercial use",
    "Intel/dpt-large": "Apache-2.0",
    "google/siglip2-base-patch16-384": "Apache-2.0",
    "openai/clip-vit-large-patch14": "MIT, as OpenAI's code; its card says for research",
    "facebook/dinov2-base": "Apache-2.0",
    "facebook/dinov2-large": "Apache-2.0",
    "IDEA-Research/grounding-dino-tiny": "Apache-2.0",
    "facebook/sam2-hiera-large": "Apache-2.0",
    "yuvalkirstain/PickScore_v1": (
        "its card names no licence, its authors' code is MIT; trained from LAION's CLIP ViT-H/14 (MIT)"
    ),
    "trl-lib/ddpo-aesthetic-predictor": (
        "a copy of LAION's improved-aesthetic-predictor, whose licence is not stated beside the weights: ask its author"
    ),
    "opencv/face_detection_yunet": "MIT",
    "opencv/face_recognition_sface": "Apache-2.0; what it was trained on is not stated",
    "alexnet": TORCHVISION,
    "vgg16": TORCHVISION,
    "squeezenet1_1": TORCHVISION,
    "tomg-group-umd/CSD-ViT-L": "MIT, as the class that publishes it says; trained from OpenAI's CLIP ViT-L/14 (MIT)",
}
"""Weights by the name that a recipe gives them."""


@dataclass(frozen=True)
class Terms:
    """Of a reward's code, and of the weights that it loads."""

    code: str
    weights: str = "no weights"

    def __str__(self) -> str:
        return f"{self.code}; {self.weights}"


ON_TRANSFORMERS = f"{OURS}, on transformers (Apache-2.0)"
ON_TORCHMETRICS = f"{OURS}, on torchmetrics (Apache-2.0)"
REWARDS: Mapping[str, Terms] = {
    "patch_perceptual": Terms(OURS),
    "masked_pixel": Terms(OURS),
    "masked_perceptual": Terms(OURS),
    "gradient_structure": Terms(OURS),
    "region_colour": Terms(OURS),
    "style_colour": Terms(OURS),
    "region_texture": Terms(OURS),
    "patch_dreamsim": Terms("MIT (package dreamsim)", DREAMSIM),
    "image_reward": Terms(
        f"{OURS}, on image-reward (Apache-2.0)", "weights: those of THUDM/ImageReward, whose card was not read here"
    ),
    "depth_structure": Terms(ON_TRANSFORMERS, "weights: those of checkpoint"),
    "region_similarity": Terms(ON_TRANSFORMERS, "weights: those of encoder, detector and segmenter"),
    "target_similarity": Terms(ON_TRANSFORMERS, "weights: those of encoder"),
    "style_similarity": Terms(ON_TRANSFORMERS, "weights: those of checkpoint"),
    "text_alignment": Terms(ON_TRANSFORMERS, "weights: those of encoder"),
    "edit_direction": Terms(ON_TRANSFORMERS, "weights: those of encoder"),
    "pick_score": Terms(ON_TRANSFORMERS, "weights: those of checkpoint"),
    "aesthetic": Terms(ON_TRANSFORMERS, "weights: those of checkpoint and encoder"),
    "vlm_judge": Terms(f"{OURS}, on the openai client (Apache-2.0)", "weights: those that the endpoint serves"),
    "vlm_win_rate": Terms(f"{OURS}, on the openai client (Apache-2.0)", "weights: those that the endpoint serves"),
    "ocr_text": Terms(f"{OURS}, on rapidocr (Apache-2.0)", "weights: PP-OCR Apache-2.0, in the package"),
    "face_identity": Terms(f"{OURS}, on OpenCV (Apache-2.0)", "weights: those of detector and recognizer"),
    "psnr": Terms(ON_TORCHMETRICS),
    "ms_ssim": Terms(ON_TORCHMETRICS),
    "lpips": Terms(ON_TORCHMETRICS, f"weights: LPIPS BSD-2-Clause; {TORCHVISION}"),
    "dists": Terms(ON_TORCHMETRICS, f"weights: DISTS MIT; {TORCHVISION}"),
}
"""Rewards by the name that a recipe gives them."""

LICENCES: Mapping[str, str] = {**{name: str(terms) for name, terms in REWARDS.items()}, **MODELS}


def licence_of(name: str) -> str:
    """The terms of a reward or of weights, or that they are not known here.

    >>> licence_of("facebook/dinov2-base")
    'Apache-2.0'
    >>> licence_of("somebody/else")
    'not known'
    """
    return LICENCES.get(name, UNKNOWN)
