"""Questions and answers: everything arrives as it was, and nothing that is wrong is taken for a number."""

import json
import pickle

import pytest
import torch

from rewards import Failure, RewardInputs, Scores
from rewards.isolated.wire import Limits, WireError, answer_bytes, head_of, inputs_of, question_bytes, scores_of


@pytest.fixture
def inputs():
    return RewardInputs(
        images=torch.rand(4, 3, 6, 5),
        targets=torch.rand(2, 3, 6, 5),
        masks=torch.rand(2, 1, 6, 5),
        references=[[torch.rand(3, 2, 3), torch.rand(3, 4, 4)], []],
        roles=[["reference", "style"], []],
        reference_masks=[[None, torch.rand(1, 4, 4)], []],
        prompts=["a “quoted” prompt\nin two lines", ""],
        extras={"pose": [None, {"x": [1, 2.5]}]},
    )


def test_a_question_arrives_as_it_was_sent(inputs):
    label, again = inputs_of(question_bytes("r", inputs, 32), Limits())
    assert label == "r"
    for name in ("images", "targets", "masks"):
        assert torch.equal(getattr(again, name), getattr(inputs, name))
    assert again.drafts is None
    assert [[image.shape for image in row] for row in again.references] == [[(3, 2, 3), (3, 4, 4)], []]
    assert torch.equal(again.references[0][1], inputs.references[0][1])
    assert again.reference_masks[0][0] is None
    assert torch.equal(again.reference_masks[0][1], inputs.reference_masks[0][1])
    assert (again.roles, again.prompts, again.extras) == (inputs.roles, inputs.prompts, inputs.extras)


def test_a_column_that_is_no_plain_value_cannot_be_sent():
    with pytest.raises(WireError, match="plain values"):
        question_bytes("r", RewardInputs(images=torch.rand(1, 3, 2, 2), extras={"x": [object()]}), 32)
    with pytest.raises(WireError, match="plain values"):
        question_bytes("r", RewardInputs(images=torch.rand(1, 3, 2, 2), extras={"x": [float("nan")]}), 32)


def test_scores_arrive_as_they_were():
    values = torch.tensor([0.1, float("nan"), 3e-45, -7.25])
    applicable = torch.tensor([True, True, True, False])
    scores = Scores(values=values, failures={1: Failure("nan", "why")}, applicable=applicable)
    again = scores_of(answer_bytes(scores), 4)
    assert torch.equal(again.values[[0, 2, 3]], values[[0, 2, 3]])
    assert again.values[1].isnan()
    assert again.failures == scores.failures
    assert torch.equal(again.applicable, applicable)


ANSWERS = {
    "garbage": (b"\x00\xff\xfe garbage", "in JSON"),
    "nothing": (b"", "in JSON"),
    "HTML": (b"<html>it works</html>", "in JSON"),
    "a list": (b"[0.5, 0.5]", "in JSON"),
    "a pickle": (pickle.dumps({"wire": 1, "values": [0.5, 0.5]}), "in JSON"),
    "another version": (b'{"wire": 2, "values": [0.5, 0.5]}', "expected wire version 1, found 2; install"),
    "no version": (b'{"values": [0.5, 0.5]}', "expected wire version 1, found None"),
    "too few": (b'{"wire": 1, "values": [0.5]}', "expected 2 values, found 1"),
    "too many": (b'{"wire": 1, "values": [0.5, 0.5, 0.5]}', "expected 2 values, found 3"),
    "no values": (b'{"wire": 1}', "expected 2 values, found NoneType"),
    "NaN": (b'{"wire": 1, "values": [NaN, 0.5]}', "in JSON"),
    "infinite": (b'{"wire": 1, "values": [-Infinity, 0.5]}', "in JSON"),
    "text": (b'{"wire": 1, "values": ["0.5", 0.5]}', "expected a number for image 0, found str"),
    "truth": (b'{"wire": 1, "values": [true, 0.5]}', "expected a number for image 0, found bool"),
    "null without a reason": (b'{"wire": 1, "values": [null, 0.5]}', "image 0 has neither a value nor a failure"),
    "a huge number": (b'{"wire": 1, "values": [1' + b"0" * 400 + b", 0.5]}", "beyond"),
    "a failure of nobody": (
        b'{"wire": 1, "values": [0.5, 0.5], "failures": {"2": {"kind": "x", "message": ""}}}',
        "one of 2 images, found '2'",
    ),
    "a failure of −1": (
        b'{"wire": 1, "values": [0.5, 0.5], "failures": {"-1": {"kind": "x", "message": ""}}}',
        "found '-1'",
    ),
    "failures in a list": (b'{"wire": 1, "values": [0.5, 0.5], "failures": ["x"]}', "by the numbers"),
    "applies to three": (b'{"wire": 1, "values": [0.5, 0.5], "applicable": [true, true, true]}', "2 truth values"),
    "a refusal": (b'{"wire": 1, "error": "no such reward"}', "refused: no such reward"),
    "depth": (b"[" * 10**6, "in JSON"),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_an_answer_that_is_none_is_an_error(case):
    answer, message = ANSWERS[case]
    with pytest.raises(WireError, match=message):
        scores_of(answer, 2)


def test_what_a_question_may_ask_for_is_limited(inputs):
    question = question_bytes("r", inputs, 8)
    assert len(head_of(question, Limits())["images"]) == 11
    for limits, message in (
        (Limits(body=100), "at most 100 bytes"),
        (Limits(head=100), "at most 100 bytes of JSON"),
        (Limits(images=10), "at most 10 images, found 11"),
        (Limits(pixels=100), "at most 100 pixels, found 278"),  # 8·30 + 6 + 16 + 16
    ):
        with pytest.raises(WireError, match=message):
            head_of(question, limits)


def head(**changes):
    plain = {"wire": 1, "reward": "r", "bits": 8, "images": [], "inputs": {}}
    return json.dumps(plain | changes).encode() + b"\n"


@pytest.mark.parametrize(
    "question",
    [
        b"",
        b"{}\n",
        b"no line at all",
        head(wire=0),
        head(bits=7),
        head(images="x"),
        head(images=[{"shape": [3, 4], "bytes": 1}]),
        head(images=[{"shape": [3, -4, 4], "bytes": 1}]),
        head(images=[{"shape": [3, 4, 4], "bytes": 10**30}]),
        head(images=[{"shape": [3, 4, 4], "bytes": 4}]) + b"1234",
        head(images=[{"shape": [3, 4, 4], "bytes": 4}]) + b"12345",
        head(inputs={"images": [0]}),
        head(inputs={"images": [-1]}),
        head(inputs={"wrong": []}),
        head(inputs={}),
        head(inputs=[]),
        pickle.dumps({"wire": 1}) + b"\n",
    ],
)
def test_a_question_that_makes_no_sense_is_an_error(question):
    with pytest.raises(WireError):
        inputs_of(question, Limits())
