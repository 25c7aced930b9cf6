"""Likeness of faces, by OpenCV's own detector and recogniser on networks whose answers are known."""

import pytest
import torch

from rewards import FaceIdentity, RewardError, RewardInputs
from rewards.measuring import measured
from rewards.testing import check_reward
from tests.rewards.random_faces import SIDE, detector, recognizer


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    return str(detector(folder / "yunet.onnx")), str(recognizer(folder / "sface.onnx"))


@pytest.fixture
def reward_of(files):
    return lambda **settings: FaceIdentity(detector=files[0], recognizer=files[1], **settings)


def face(seed):
    """A "person": noise without red of 48 pixels, with the red cell that the detector knows in the middle."""
    made = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    made[0] *= made[1]  # less red than green
    made[:, 24:32, 24:32] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    return made


def picture(*people, size=(128, 248), ground=0.5):
    """People at places, multiples of 8, on grey: ``[3, H, W]``."""
    made = torch.full((3, *size), ground)
    for seed, top, left in people:
        made[:, top : top + SIDE, left : left + SIDE] = face(seed)
    return made


def inputs_of(images, drafts):
    return RewardInputs(images=torch.stack(images), drafts=torch.stack(drafts))


def test_the_same_face_elsewhere_is_alike_and_another_is_not(reward_of):
    images = [picture((1, 40, 40)), picture((1, 48, 160)), picture((2, 48, 160))]
    scores = reward_of()(inputs_of(images, [picture((1, 40, 40))])).values
    assert scores[0].item() == pytest.approx(1.0, abs=1e-5)
    assert scores[1].item() == pytest.approx(1.0, abs=1e-3)  # the crop is aligned, so the place does not matter
    assert scores[2] < 0.5


def test_the_score_is_the_cosine_of_opencv(reward_of, files):
    import cv2

    images = [picture((1, 40, 40)), picture((2, 40, 40))]
    pixels = [(image.flip(0).permute(1, 2, 0) * 255).round().byte().numpy().copy() for image in images]
    finder = cv2.FaceDetectorYN.create(files[0], "", (248, 128), 0.6, 0.3, 50)
    known = cv2.FaceRecognizerSF.create(files[1], "")
    features = [known.feature(known.alignCrop(each, finder.detect(each)[1][0])).copy() for each in pixels]
    expected = known.match(features[0], features[1], cv2.FaceRecognizerSF_FR_COSINE)
    found = reward_of()(inputs_of([images[1]], [images[0]])).values.item()
    assert found == pytest.approx(max(expected, 0), abs=1e-5)


def test_the_best_of_all_faces_counts_against_the_largest_of_the_draft(reward_of):
    crowd = picture((2, 40, 40), (1, 48, 160))
    assert reward_of()(inputs_of([crowd], [picture((1, 40, 40))])).values.item() == pytest.approx(1.0, abs=1e-3)


def test_a_lost_face_scores_zero_or_fails_and_a_row_without_a_person_does_not_apply(reward_of):
    nobody, somebody = picture(), picture((1, 40, 40))
    inputs = inputs_of([nobody, somebody, nobody, somebody], [somebody, nobody])
    scores = measured("face", reward_of(), inputs)
    assert scores.applicable.tolist() == [True, True, False, False]
    assert scores.values[:2].tolist() == pytest.approx([0.0, 1.0], abs=1e-5)
    assert not scores.failures
    failed = measured("face", reward_of(undetected="fail"), inputs)
    assert {sample: failure.kind for sample, failure in failed.failures.items()} == {0: "undetected"}


def test_red_is_told_from_blue(reward_of):
    """OpenCV takes blue first: a face whose mark is blue is none."""
    assert len(reward_of().faces(picture((1, 40, 40)))) == 1
    assert len(reward_of().faces(picture((1, 40, 40)).flip(0))) == 0


def test_the_reference_of_a_role_shows_the_person(reward_of):
    images = torch.stack([picture((1, 40, 40)), picture((1, 40, 40))])
    references = [[picture((2, 40, 40)), picture((1, 40, 56), size=(120, 152))], [picture((2, 40, 40))]]
    inputs = RewardInputs(images=images, references=references, roles=[["scene", "person"], ["scene"]])
    reward = reward_of(against="references", role="person")
    assert (reward.needs, reward.uses) == (frozenset(), {"references.person"})
    scores = measured("face", reward, inputs)
    assert scores.applicable.tolist() == [True, False]
    assert scores.values[0].item() == pytest.approx(1.0, abs=1e-3)


def test_keeps_the_contract(reward_of):
    noisy = reward_of(threshold=0.02)  # in noise the mean of red is above that of green in about half of the cells
    assert len(noisy.faces(torch.rand(3, 64, 80, generator=torch.Generator().manual_seed(0)))) > 0
    check_reward(noisy, size=(64, 80))
    check_reward(reward_of(threshold=0.02, against="references", role="style"), size=(64, 80))


def test_networks_that_are_not_there_are_described_with_their_licences():
    with pytest.raises(RewardError, match="opencv/face_detection_yunet") as caught:
        FaceIdentity()
    assert "Licence of these weights: MIT" in str(caught.value)


def test_a_damaged_file_is_one_error(tmp_path, files):
    (tmp_path / "broken.onnx").write_bytes(b"not a network")
    with pytest.raises(RewardError, match=r"broken.onnx .* cannot be loaded"):
        FaceIdentity(detector=str(tmp_path / "broken.onnx"), recognizer=files[1])
