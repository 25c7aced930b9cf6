"""OmniRef-Bench: composites by hand, subjects found and not, a judge with a rubric, rows of the published metadata."""

import json
from math import exp

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from rewards import RewardInputs
from rewards.judge_client import Client
from rewards.measuring import measured
from rlrefine.data.folder import read_rows
from rlrefine.data.omniref import keypoints_file, role_of, write_rows
from rlrefine.errors import DataError
from rlrefine.evaluation.benchmarks.omniref import OMNIREF
from rlrefine.evaluation.omniref.judge import RubricJudge
from rlrefine.evaluation.omniref.lighting import LightingConsistency, grey8, lab8, levels, lighting_parts
from rlrefine.evaluation.omniref.pose import PoseConsistency, pose_likeness
from rlrefine.evaluation.omniref.rubric import DIMENSIONS
from rlrefine.evaluation.omniref.subjects import BackgroundLikeness, SubjectFidelity, crop
from rlrefine.evaluation.scorers import NotGivenError, choose
from tests.evaluation.test_eval import run
from tests.rewards.fake_judge import completion, images_of, names_of, serving


def flat(level, side=32):
    return torch.full((3, side, side), level / 255)


def lit(image, reference):
    return LightingConsistency()(
        RewardInputs(images=image[None], references=[[reference]], roles=[["lighting"]])
    ).item()


def test_lighting_of_two_greys_by_hand():
    """Greys 102 and 119 have L 43.19 and 50.03, in 8 bits 110 and 128: luminance 1 − 18/50 = 0.64. No contrast, no
    tint, two even grids: 1 each. Bins 25 and 29 of 64 share nothing: 0.  20·0.64 + 15 + 20 + 25 + 0 = 72.8"""
    assert lit(flat(102), flat(119)) == pytest.approx(72.8, abs=1e-4)
    assert lit(flat(102), flat(102)) == pytest.approx(100)
    # L 110 and 54 are more than 50 apart
    assert lit(flat(102), flat(51)) == pytest.approx(60)


def test_lighting_from_the_other_side_by_hand():
    """Black left, white right, and mirrored: the same levels, so four parts are 1; the grid correlates by −1: 0."""
    half = torch.zeros(3, 512, 512)
    half[:, :, 256:] = 1
    assert lit(half, half.flip(-1)) == pytest.approx(75)


def test_parts_of_the_light_by_hand():
    """Half 51, half 204: c = 153/255 = 0.6, and of a flat image 0: 1 − 2·0.6 < 0. One even grid: 0. Of halves of 51 and
    of a flat 51: p·q is ½·1 in one bin, so 1 − √(1 − √½)."""
    image = np.full((512, 512, 3), 51.0)
    image[256:] = 204
    parts = lighting_parts(image, np.full((512, 512, 3), 51.0))
    assert parts["contrast"] == 0
    assert parts["grid"] == 0
    assert parts["colour"] == 1
    assert parts["shadow"] == pytest.approx(1 - (1 - 0.5**0.5) ** 0.5)


def test_levels_are_those_of_opencv():
    cv2 = pytest.importorskip("cv2")
    image = torch.rand(3, 40, 56, generator=torch.Generator().manual_seed(0))
    whole = (image * 255).round().byte().permute(1, 2, 0).numpy()
    theirs = cv2.resize(whole, (512, 512))
    assert np.abs(levels(image) - theirs).max() <= 1
    off = np.abs(lab8(theirs.astype(float)) - cv2.cvtColor(theirs, cv2.COLOR_RGB2LAB))
    assert off.max() <= 2  # it interpolates in tables
    assert (off > 1).mean() < 1e-4
    assert np.abs(grey8(theirs.astype(float)) - cv2.cvtColor(theirs, cv2.COLOR_RGB2GRAY)).max() <= 1


def pose_of(**joints):
    """Joints of these numbers, found; all others at (0, 0), not found."""
    pose = np.zeros((17, 3))
    for name, place in joints.items():
        pose[int(name[1:])] = (*place, 1)
    return pose


def test_pose_by_hand():
    """Shoulder (0, 0), elbow (±4, 0), hip (0, 3). Both boxes have a diagonal of 5, and their means are 8/17 apart: so
    shoulder and hip are 8/85 apart, the elbow 128/85. The torso is 3/5: 8/85 is 0.157 of it, so two of three joints are
    within both thresholds. The only limb points the other way: 0."""
    first, second = pose_of(j5=(0, 0), j7=(4, 0), j12=(0, 3)), pose_of(j5=(0, 0), j7=(-4, 0), j12=(0, 3))
    near = (8 / 85) ** 2 / 2
    oks = (exp(-near / 0.079**2) + exp(-near / 0.107**2) + exp(-((128 / 85) ** 2) / 2 / 0.072**2)) / 3
    assert pose_likeness(first, second) == pytest.approx(0.2 * oks + 0.2 * 2 / 3 + 0.1 * 2 / 3 + 0.5 * 0)


def test_a_pose_is_itself_wherever_and_however_large():
    pose = np.random.default_rng(0).random((17, 3)) + 0.1
    moved = pose * [3, 3, 1] + [5, -2, 0]
    assert pose_likeness(pose, moved) == pytest.approx(1)
    upside_down = pose * [-1, -1, 1]
    assert pose_likeness(pose, upside_down) < 0.5
    assert pose_likeness(pose, np.zeros((17, 3))) == 0
    assert pose_likeness(np.ones((17, 3)), np.ones((17, 3))) == 0  # without extent


def test_poses_come_from_files_beside_the_pictures(tmp_path):
    joints = [float(number) for number in np.random.default_rng(0).random(51) + 0.1]
    (tmp_path / "joints").mkdir()
    (tmp_path / "joints" / "a.json").write_text(json.dumps({"persons": [{"keypoints": joints}]}))
    (tmp_path / "joints" / "b.json").write_text(json.dumps({"persons": []}))
    with pytest.raises(NotGivenError, match="AlphaPose"):
        PoseConsistency()
    files = [str(tmp_path / f"{name}.png") for name in "abc"] + [None, "x.png"]
    inputs = RewardInputs(
        images=torch.rand(5, 3, 8, 8),
        references=[[torch.rand(3, 8, 8)]] * 5,
        roles=[["pose"]] * 4 + [["style"]],
        extras={"picture_file": files, "pose_keypoints": [joints] * 5},
    )
    scores = measured("pose", PoseConsistency(keypoints="joints"), inputs)
    assert scores.values[:2].tolist() == pytest.approx([1, 0])  # the same, and nobody
    assert list(scores.failures) == [2]  # no file
    assert scores.applicable.tolist() == [True, True, True, False, False]


@pytest.fixture
def finding(network_folder):
    """Arguments of a measure on random networks."""

    def arguments(kind):
        folders = {"detector": str(network_folder("grounding_dino")), "segmenter": str(network_folder("sam2"))}
        return {"checkpoint": str(network_folder(kind)), **folders}

    return arguments


def subjects(images, names, roles=("subject", "subject"), seed=1):
    references = [torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(seed + k)) for k in range(len(roles))]
    return RewardInputs(images=images, references=[references], roles=[list(roles)], extras={"subjects": [list(names)]})


@pytest.mark.parametrize("kind", ["clip", "dinov2"])
def test_a_subject_that_is_not_found_counts_nothing(finding, kind, monkeypatch):
    measure = SubjectFidelity(encoder=kind, **finding(kind))
    box = torch.tensor([[0.25, 0.25, 0.75, 0.75]])
    monkeypatch.setattr(measure.find, "best_box", lambda image, name: box if name == "a car" else None)
    inputs = subjects(torch.rand(1, 3, 48, 48), ["a car", "a chair"])
    cut = crop(inputs.images[0], box[0])
    assert cut.shape == (3, 45, 45)  # from 12 − 10 to 36 + 10, both included
    pair = [measure.encoder.embed(image[None], measure.features) for image in (cut, inputs.references[0][0])]
    assert measure(inputs).item() == pytest.approx(F.cosine_similarity(*pair).item() / 2, abs=1e-6)


def test_dinov2_is_the_mean_of_all_its_tokens(finding):
    encoder = SubjectFidelity(encoder="dinov2", **finding("dinov2")).encoder
    image = torch.rand(1, 3, 32, 32)
    (output,) = encoder._outputs(image, whole=False)
    assert torch.equal(encoder.embed(image, "tokens"), output.last_hidden_state.mean(dim=1))


def test_the_best_box_is_the_one_of_the_greatest_confidence(finding):
    finder = SubjectFidelity(threshold=0.01, **finding("clip")).find
    image = torch.rand(1, 3, 48, 48)
    with torch.no_grad():
        box_K4, confidence_K = finder._found(image, "a car")
        assert len(box_K4) > 1
        assert torch.equal(finder.best_box(image, "a car"), box_K4[confidence_K.argmax()][None])
        finder.threshold = 0.9999
        assert finder.best_box(image, "a car") is None


def test_background_is_compared_where_no_subject_is(finding, monkeypatch):
    measure = BackgroundLikeness(**finding("clip"))
    mask = torch.zeros(1, 32, 32)
    mask[:, 8:24, 8:24] = 1
    monkeypatch.setattr(measure.find, "best_box", lambda image, name: torch.zeros(1, 4) if name == "a car" else None)
    monkeypatch.setattr(measure.find, "outline", lambda image, box: mask)
    inputs = subjects(torch.rand(1, 3, 32, 32), ["a car", "a chair"], roles=("background",))
    reference = inputs.references[0][0]
    pasted = torch.where(mask > 0, torch.rand(3, 32, 32), reference)
    inputs = subjects(torch.stack([inputs.images[0], pasted]), ["a car", "a chair"], roles=("background",))
    other, same = measure(inputs).tolist()
    assert same == pytest.approx(1, abs=1e-5)
    assert other < same


@pytest.fixture
def judge_of(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")

    def make(dimension, endpoint):
        return RubricJudge(dimension=dimension, endpoint=endpoint, retries=0, deadline=20.0, cache=str(tmp_path))

    return make


def test_the_judge_is_asked_once_about_what_applies(judge_of):
    """Marks 8 for the prompt and null for the subject; style has a reference, light and background have none."""
    marks = {"text": 8, "subject": None, "style": 3, "aesthetics": 6}
    with serving(lambda body: completion({"reason": "", **marks})) as (judge, endpoint):
        references = [torch.rand(3, 16, 16), torch.rand(3, 16, 24), torch.rand(3, 16, 16)]
        inputs = RewardInputs(
            images=torch.rand(1, 3, 16, 16),
            prompts=["a car in image 1"],
            references=[references],
            roles=[["subject", "style", "pose"]],
        )
        found = {name: measured(name, judge_of(name, endpoint), inputs) for name in DIMENSIONS}
    assert len(judge.bodies) == 1  # six measures, one request
    assert names_of(judge.bodies[0]) == ["text", "subject", "style", "aesthetics"]
    assert len(images_of(judge.bodies[0])) == 3  # subject, style and the picture; no pose
    assert not any(scores.failures for scores in found.values())
    assert {name: scores.values.item() for name, scores in found.items() if scores.applicable is None} == {}
    applied = {name: scores.values.item() for name, scores in found.items() if scores.applicable.all()}
    assert applied == {"text": 8, "style": 3, "aesthetics": 6}


def test_the_judge_has_an_endpoint_or_is_not_asked(judge_of):
    with pytest.raises(NotGivenError, match="endpoint"):
        RubricJudge(dimension="text")
    assert isinstance(judge_of("text", "http://127.0.0.1:9/v1").client, Client)


def test_finals_are_means_of_means():
    final = OMNIREF.finals["objective"]
    means = {"subject_clip": 0.8, "subject_dinov2": 0.5, "background": 0.7, "style": 0.6, "lighting": 70.0, "pose": 0.3}
    # (0.8 + 0.5 + 0.7 + 0.6 + 0.7 + 0.3) / 6
    assert final.of(means) == pytest.approx(0.6)
    assert final.of({name: mean for name, mean in means.items() if name != "pose"}) is None
    assert set(OMNIREF.finals["judge"].factors) == {f"judge_{name}" for name in DIMENSIONS}


def test_one_key_for_all_measures_of_a_kind():
    chosen = choose(OMNIREF, ["judge", "lighting"], ["judge.endpoint=http://127.0.0.1:9/v1"], {})
    assert len(chosen.benchmark.measures) == 7
    ends = {name: measure.arguments.get("endpoint") for name, measure in chosen.benchmark.measures.items()}
    assert ends == {
        "lighting": None,
        **dict.fromkeys((f"judge_{name}" for name in DIMENSIONS), "http://127.0.0.1:9/v1"),
    }


JOINTS = [float(number) for number in range(51)]


@pytest.fixture
def published(tmp_path):
    """Two entries in the public layout, with their files."""
    files = [
        *("subject/2/0/transfer_subjects/a wild rabbit.png", "subject/2/0/transfer_subjects/a child.png"),
        *("subject_pose_bg_style/4/0/transfer_subjects/a man.png", "subject_pose_bg_style/4/0/style/reference.png"),
        *("subject_pose_bg_style/4/0/background/background.png", "subject_pose_bg_style/4/0/pose/skeleton/a_man.jpg"),
    ]
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 12)).save(tmp_path / file)
    joints = tmp_path / keypoints_file(files[-1])
    joints.parent.mkdir()
    small = {"keypoints": [0.0] * 51}
    joints.write_text(json.dumps({"persons": [small, {"keypoints": JOINTS}]}))
    entries = [
        {"image": "subject/2/0/0.png", "prompt": "a", "edit_image": files[:2], "index": 7, "category": "subject"},
        {"image": "x/0.png", "prompt": "b", "edit_image": files[2:], "index": 8, "category": "subject_pose_bg_style"},
    ]
    (tmp_path / "benchmark.json").write_text(json.dumps(entries))
    return tmp_path


def test_the_published_metadata_becomes_rows(published):
    counts = write_rows(published / "benchmark.json", published, (32, 48))
    assert counts == {"subject": 1, "subject_pose_bg_style": 1}
    plain, full = read_rows(published)
    assert (plain["id"], plain["subjects"]) == ("7", ["a wild rabbit", "a child"])
    assert full["reference_roles"] == ["subject", "style", "background", "pose"]
    assert (plain["pose_keypoints"], full["pose_keypoints"]) == (None, JOINTS)  # of the larger person
    assert Image.open(published / plain["draft_file_name"]).size == (48, 32)
    with pytest.raises(DataError, match="there already"):
        write_rows(published / "benchmark.json", published, (32, 48))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edit_image": ["subject/style.png"]}, "no folder that says what it is for"),
        ({"edit_image": ["subject/0/transfer_subjects/gone.png"]}, "lacks 1 references"),
        ({"edit_image": None}, "edit_image: expected list"),
        ({"index": "7"}, "index: expected int"),
    ],
)
def test_metadata_of_another_form_is_one_error(published, change, message):
    file = published / "benchmark.json"
    entries = json.loads(file.read_text())
    entries[0] |= change
    file.write_text(json.dumps(entries))
    with pytest.raises(DataError, match=message):
        write_rows(file, published, (32, 32))


def test_a_photo_named_reference_is_a_style_only_in_the_folder_of_styles():
    assert role_of("a/pose/reference/style.png") == "pose"
    with pytest.raises(DataError, match="pose/reference"):
        role_of("a/reference/b.png")


def test_the_benchmark_on_a_folder_of_pictures(published, tmp_path_factory, capfd):
    """One row of two has a pose reference, none a lighting reference; joints are those of the reference: 1."""
    write_rows(published / "benchmark.json", published, (32, 48))
    pictures = tmp_path_factory.mktemp("pictures")
    (pictures / "joints").mkdir()
    for name in ("7", "8"):
        Image.new("RGB", (48, 32), (200, 0, 0)).save(pictures / f"{name}.png")
    (pictures / "joints" / "8.json").write_text(json.dumps({"persons": [{"keypoints": JOINTS}]}))
    options = ["--benchmark", "omniref", "--measure", "pose", "--measure", "lighting", "--json"]
    assert run(pictures, "--data", published, *options, "pose.keypoints=joints") == 0
    summary = json.loads(capfd.readouterr().out)
    pose, (name,) = summary["measures"]["pose"], [each for each in summary["subjects"] if each != "draft"]
    assert pose["values"][name]["mean"] == pytest.approx(1)
    assert pose["not_applicable"] == {"draft": 2, name: 1}
    assert summary["measures"]["lighting"]["values"][name] is None
    assert set(summary["by"]["references"]) == {"2", "4"}
    assert set(summary["by"]["category"]) == {"subject", "subject_pose_bg_style"}
    assert summary["finals"]["objective"]["values"][name] is None  # most were not measured
    assert [each["value"] for each in summary["finals"]["judge"]["published"]] == [4.97, 8.15]
