"""The evaluation of SPIE, on any rows with a draft, a mask and a style image.

Differs from the released code:

- Its CLIP and DINOv2 patch similarities compare the wrong pictures. Input, edited and style image are concatenated in
  this order, and CLIP's features are taken apart as if it were edited, style, input; DINOv2's of input and edited image
  change names. So "edited and style" compares input with edited (CLIP) and input with style (DINOv2). Here every
  feature has its own name. DreamSim's are right there, too.
- DINOv2 sees every image squeezed to 224 × 224 (16 × 16 cells), as CLIP and DreamSim do; theirs 256 (18 × 18).
- DreamSim's patch model on DINO in place of that on DINOv2, which is built with fetched code.
- Regions are the masks of the rows; ``regions=detected`` finds them by name, as theirs are. A row whose mask covers
  everything has nothing outside: that similarity does not apply, and the error is 0; theirs take the whole image.
- A direction that is none, of a picture that was not changed, does not count; theirs is that of a small constant.
- Means are over rows, not over the means of batches.
"""

from typing import Any

from rlrefine.evaluation.benchmark import Benchmark, Measure, Published

CLIP = "openai/clip-vit-large-patch14"
ASKED, BEFORE = "{input} made out of {style}", "{input}"
"""What the edited picture shows, and what its draft: as the released code words them, from columns of the rows."""

_PATCHES: dict[str, Any] = {
    "revision": None,
    "regions": "data",
    "object": "input",
    "style": "style",
    "role": None,
    "detector": "IDEA-Research/grounding-dino-tiny",
    "segmenter": "facebook/sam2-hiera-large",
    "download": False,
    "batch": 16,
}


def _patches(label: str, to: str, encoder: str, checkpoint: str | None, *packages: str) -> Measure:
    return Measure(
        label=label,
        better="higher",
        place="rlrefine.evaluation.patch_similarity:PatchSimilarity",
        arguments={"encoder": encoder, "to": to, "checkpoint": checkpoint, **_PATCHES},
        packages=packages,
    )


_TEXT: dict[str, Any] = {"checkpoint": CLIP, "revision": None, "download": False, "batch": 16}

SOURCE = "SPIE, arXiv 2504.12833, as a secondary summary quotes it"
SIM_TO_REAL = Published(
    method="SPIE",
    measure="correlation",
    value=0.966,
    note="success of robot policies in edited simulated scenes and in real ones; how many, and which, is not given",
)

SPIE = Benchmark(
    name="spie",
    title="SPIE",
    measures={
        "depth_error": Measure(
            label="depth error, the network's units",
            better="lower",
            place="rewards.depth:DepthStructure",
            arguments={
                "checkpoint": "depth-anything/Depth-Anything-V2-Large-hf",
                "revision": None,
                "preparation": "spie",
                "normalise": "none",
                "download": False,
                "batch": 8,
            },
            factor=-1.0,
        ),
        "style_dreamsim": _patches("edited region to style, DreamSim", "style", "dreamsim", None, "dreamsim"),
        "style_clip": _patches("edited region to style, CLIP", "style", "clip", CLIP),
        "style_dinov2": _patches("edited region to style, DINOv2", "style", "dinov2", "facebook/dinov2-large"),
        "input_dreamsim": _patches("rest to the draft's, DreamSim", "draft", "dreamsim", None, "dreamsim"),
        "input_clip": _patches("rest to the draft's, CLIP", "draft", "clip", CLIP),
        "input_dinov2": _patches("rest to the draft's, DINOv2", "draft", "dinov2", "facebook/dinov2-large"),
        "text": Measure(
            label="picture to text, CLIP",
            better="higher",
            place="rlrefine.evaluation.text_alignment:TextAlignment",
            arguments={**_TEXT, "text": ASKED},
        ),
        "direction": Measure(
            label="change of picture to change of text, CLIP",
            better="higher",
            place="rlrefine.evaluation.text_alignment:TextDirection",
            arguments={**_TEXT, "text": ASKED, "before": BEFORE},
        ),
        "l2_outside": Measure(
            label="squared error outside the mask",
            better="lower",
            place="rewards.pixel:MaskedPixel",
            arguments={"norm": "l2", "where": "outside", "feather": 0.0, "against": "drafts"},
            factor=-1.0,
        ),
        "image_reward": Measure(
            label="ImageReward v1.0",
            better="higher",
            place="rlrefine.evaluation.preference_models:ImageReward",
            arguments={"checkpoint": None, "config": None, "text": ASKED, "download": False},
            packages=("ImageReward",),
        ),
        "pick_score": Measure(
            label="PickScore v1",
            better="higher",
            place="rlrefine.evaluation.text_alignment:TextAlignment",
            arguments={**_TEXT, "checkpoint": "yuvalkirstain/PickScore_v1", "text": ASKED, "scaled": True},
        ),
        "hpsv2": Measure(
            label="HPSv2.1",
            better="higher",
            place="rlrefine.evaluation.preference_models:HumanPreference",
            arguments={"checkpoint": None, "text": ASKED, "download": False},
            packages=("hpsv2",),
        ),
        "structure": Measure(
            label="without weights: gradients as in the draft",
            better="higher",
            place="rewards.structure:GradientStructure",
            arguments={"scales": [2, 4]},
        ),
        "colour": Measure(
            label="without weights: colours of the region to style",
            better="higher",
            place="rewards.region_style:RegionColour",
            arguments={"role": None},
        ),
        "texture": Measure(
            label="without weights: texture of the region to style",
            better="higher",
            place="rewards.region_style:RegionTexture",
            arguments={"role": None, "scales": [1, 2, 4]},
        ),
    },
    published=(
        Published(method="SPIE", measure="depth_error", value=20.76, note="unit not given"),
        Published(method="HIVE", measure="depth_error", value=28.50, note="unit not given"),
        Published(method="SPIE", measure="style_dreamsim", value=0.240, note="encoder not given"),
        Published(method="SPIE", measure="text", value=0.241),
    ),
    source=f"{SOURCE}; RobotCar and Places, a model for each edit",
)
