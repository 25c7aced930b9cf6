"""OmniRef-Bench: pictures made from several references of five kinds, on rows of its metadata or any with such roles.

Six objective measures, and a judge's marks in six dimensions. Each applies to the rows that have a reference of its
kind. What differs from the released code is said where each is measured.
"""

from typing import Any

from rlrefine.evaluation.benchmark import Benchmark, Final, Measure, Published

CLIP = "openai/clip-vit-base-patch16"
UNVERIFIED = "from a third-party copy of another model's report; not verified, and how it is averaged is not known"
OBJECTIVE, JUDGE = "objective", "judge"

_FOUND: dict[str, Any] = {
    "revision": None,
    "detector": "IDEA-Research/grounding-dino-tiny",
    "segmenter": "facebook/sam2.1-hiera-large",
    "threshold": 0.35,
    "download": False,
}


def _subject(label: str, encoder: str, checkpoint: str) -> Measure:
    return Measure(
        label=label,
        better="higher",
        place="rlrefine.evaluation.omniref.subjects:SubjectFidelity",
        arguments={"encoder": encoder, "checkpoint": checkpoint, **_FOUND},
    )


def _judge(label: str, dimension: str) -> Measure:
    return Measure(
        label=f"judge: {label}",
        better="higher",
        place="rlrefine.evaluation.omniref.judge:RubricJudge",
        arguments={
            "dimension": dimension,
            "model": "gemini-3-flash",
            "endpoint": None,
            "key_env": None,
            "side": 512,
            "tokens": 2048,
            "deadline": 120.0,
            "retries": 2,
            "parallel": 8,
            "cache": None,
        },
    )


OMNIREF = Benchmark(
    name="omniref",
    title="OmniRef-Bench",
    measures={
        "subject_clip": _subject("subjects, CLIP-I", "clip", CLIP),
        "subject_dinov2": _subject("subjects, DINOv2", "dinov2", "facebook/dinov2-base"),
        "background": Measure(
            label="background, CLIP",
            better="higher",
            place="rlrefine.evaluation.omniref.subjects:BackgroundLikeness",
            arguments={"checkpoint": CLIP, **_FOUND},
        ),
        "style": Measure(
            label="style, CSD",
            better="higher",
            place="rewards.style:StyleSimilarity",
            arguments={
                "checkpoint": "tomg-group-umd/CSD-ViT-L",
                "revision": None,
                "role": "style",
                "download": False,
                "batch": 16,
            },
        ),
        "lighting": Measure(
            label="lighting, 0 to 100",
            better="higher",
            place="rlrefine.evaluation.omniref.lighting:LightingConsistency",
            arguments={"role": "lighting"},
        ),
        "pose": Measure(
            label="pose",
            better="higher",
            place="rlrefine.evaluation.omniref.pose:PoseConsistency",
            arguments={"keypoints": None},
        ),
        "judge_text": _judge("prompt", "text"),
        "judge_subject": _judge("subjects", "subject"),
        "judge_style": _judge("style", "style"),
        "judge_lighting": _judge("lighting", "lighting"),
        "judge_background": _judge("background", "background"),
        "judge_aesthetics": _judge("aesthetics", "aesthetics"),
    },
    finals={
        OBJECTIVE: Final(
            label="mean of the six objective measures, lighting as a share",
            factors={
                **dict.fromkeys(("subject_clip", "subject_dinov2", "background", "style", "pose"), 1.0),
                "lighting": 0.01,
            },
        ),
        JUDGE: Final(
            label="judge, mean of the six dimensions' means",
            factors={
                f"judge_{name}": 1.0 for name in ("text", "subject", "style", "lighting", "background", "aesthetics")
            },
        ),
    },
    published=(
        Published(method="Qwen-Image-Edit-2511", measure=OBJECTIVE, value=0.59, note=UNVERIFIED),
        Published(method="SenseNova-U1.5-8B-MoT", measure=OBJECTIVE, value=0.68, note=UNVERIFIED),
        Published(method="Qwen-Image-Edit-2511", measure=JUDGE, value=4.97, note=UNVERIFIED),
        Published(method="SenseNova-U1.5-8B-MoT", measure=JUDGE, value=8.15, note=UNVERIFIED),
    ),
    source="OmniRef-Bench of DyRef, arXiv 2606.26947; the paper's own tables were not at hand",
    by=("category", "references"),
)
