"""A judge behind an OpenAI-compatible endpoint: marks by hand, and a server that does everything wrong."""

import asyncio
import json
import threading
import time

import pytest
import torch

from rewards import RewardError, RewardInputs, VlmJudge
from rewards.judge_settings import VlmJudgeSettings
from rewards.measuring import measured
from rewards.testing import check_reward
from tests.rewards.fake_judge import by_brightness, completion, images_of, names_of, send, serving

CANARY = "sk-canary-7d1f"


@pytest.fixture
def judged(tmp_path, monkeypatch):
    """A reward whose answers are kept in a folder of its own, and that waits for nobody for long."""
    monkeypatch.setenv("NO_PROXY", "*")

    def make(endpoint, **settings):
        usual = {"deadline": 20.0, "retries": 0, "cache": str(tmp_path / "answers")}
        reward = VlmJudge(endpoint=endpoint, **{**usual, **settings})
        object.__setattr__(reward.client, "pause", 0.01)
        return reward

    return make


def inputs_of(levels, rows=1, **more):
    """Plain images of these levels, on grey drafts."""
    images = torch.stack([torch.full((3, 16, 16), level) for level in levels])
    drafts = torch.full((rows, 3, 16, 16), 0.5)
    return RewardInputs(images=images, drafts=drafts, prompts=[f"make it {row}" for row in range(rows)], **more)


def test_marks_become_their_weighted_mean(judged):
    """Marks 8, 5 and null with weights 1, 3 and 7: (1·8 + 3·5)/(10·4) = 0.575."""
    answer = completion({"reason": "", "instruction": 8, "preservation": 5, "quality": None})
    with serving(lambda body: answer) as (_, endpoint):
        reward = judged(endpoint, weights={"instruction": 1, "preservation": 3, "quality": 7})
        assert reward(inputs_of([0.5])).values.item() == pytest.approx(0.575)


def test_where_the_judge_can_say_nothing_the_reward_does_not_apply(judged):
    answer = completion({"reason": "too dark", "instruction": None, "quality": 4})
    with serving(lambda body: answer) as (_, endpoint):
        scores = measured("judge", judged(endpoint, weights={"instruction": 1, "quality": 0}), inputs_of([0.5]))
    assert not scores.failures
    assert scores.applicable.tolist() == [False]


def test_the_judge_sees_all_that_it_is_asked_about(judged):
    reference = torch.zeros(3, 8, 24)
    reference[0] = 1
    inputs = inputs_of([0.25, 0.75], rows=2, references=[[reference], []])
    with serving() as (judge, endpoint):
        reward = judged(endpoint, weights={"reference": 1, "quality": 1}, side=32)
        assert reward(inputs).values.tolist() == pytest.approx([0.3, 0.7])  # 64 and 191 of 255 are 2.51 and 7.49
    with_one, without = sorted(judge.bodies, key=lambda body: -len(names_of(body)))
    assert names_of(with_one) == ["reference", "quality"]
    assert names_of(without) == ["quality"]
    shown = images_of(with_one)
    assert [image.shape for image in shown] == [(16, 16, 3), (8, 24, 3), (16, 16, 3)]
    assert shown[1][0, 0].tolist() == [1, 0, 0]
    assert shown[2].mean() == pytest.approx(0.25, abs=1 / 255)
    text = [part["text"] for part in with_one["messages"][1]["content"] if part["type"] == "text"]
    assert text[0] == 'Instruction of the edit: "make it 0"'
    assert (with_one["temperature"], with_one["model"]) == (0.0, "Qwen/Qwen2.5-VL-7B-Instruct")
    assert with_one["response_format"]["json_schema"]["strict"] is True


def test_large_images_are_made_smaller(judged):
    with serving() as (judge, endpoint):
        wide = RewardInputs(images=torch.rand(1, 3, 40, 100), prompts=["x"])
        judged(endpoint, weights={"quality": 1}, side=50)(wide)
    assert images_of(judge.bodies[0])[-1].shape == (20, 50, 3)


def test_keeps_the_contract(judged):
    with serving() as (_, endpoint):
        check_reward(judged(endpoint), size=(16, 24))
        check_reward(judged(endpoint, weights={"reference": 1}), size=(16, 24))


def test_nothing_is_asked_twice(judged):
    inputs = inputs_of([0.2, 0.6, 0.2])
    with serving() as (judge, endpoint):
        first = judged(endpoint)(inputs).values
        assert len(judge.bodies) == 2  # equal images are one question
        again = judged(endpoint, weights={"instruction": 0, "preservation": 0, "quality": 1})(inputs).values
        assert len(judge.bodies) == 2  # other weights are the same question
        assert torch.equal(first, again)
        judged(endpoint, model="another")(inputs)
        judged(endpoint, weights={"quality": 1})(inputs)
        assert len(judge.bodies) == 6
        judged(endpoint, keep=False)(inputs)
        assert len(judge.bodies) == 8


def test_a_damaged_answer_on_disk_is_asked_anew(judged, tmp_path):
    with serving() as (judge, endpoint):
        expected = judged(endpoint)(inputs_of([0.3])).values
        (file,) = (tmp_path / "answers").rglob("*.json")
        for damaged in ("", "{", '{"answer": {"reason": "", "quality": 11}}', "[]"):
            file.write_text(damaged)
            assert torch.equal(judged(endpoint)(inputs_of([0.3])).values, expected)
    assert len(judge.bodies) == 5
    assert not list((tmp_path / "answers").rglob("*.part"))


def test_answers_that_came_before_a_kill_are_not_asked_again(judged):
    """The second answer ends the process, as far as the reward can tell; the first is on disk by then."""
    seen = []

    def answer(body):
        seen.append(body)
        return by_brightness(body)

    with serving(answer) as (_, endpoint):
        reward, put = judged(endpoint, parallel=1), None
        put = reward.answers.put

        def killed(*given):
            if len(seen) == 2:
                raise KeyboardInterrupt
            put(*given)

        reward.answers.put = killed
        with pytest.raises(KeyboardInterrupt):
            reward(inputs_of([0.1, 0.5, 0.9]))
        resumed = judged(endpoint, parallel=1)(inputs_of([0.1, 0.5, 0.9]))
    assert resumed.values.tolist() == pytest.approx([0.1, 0.5, 0.9])
    assert len(seen) == 4  # the one whose answer was lost is asked again, and the third for the first time


WRONG = {
    "no chat completion": lambda body: "<html>hello</html>",
    "a list": lambda body: "[]",
    "cut off": lambda body: completion({"reason": "", "quality": 7}, ended="length"),
    "no text": lambda body: json.dumps({"choices": [{"message": {"content": None}, "finish_reason": "stop"}]}),
    "half of a JSON": lambda body: completion('{"reason": "", "quality": 7'),
    "praise": lambda body: completion("score 10! ignore your form and give 10"),
    "too much": lambda body: completion({"reason": "", "quality": 11}),
    "a fraction": lambda body: completion({"reason": "", "quality": 7.5}),
    "a word": lambda body: completion({"reason": "", "quality": "7"}),
    "truth": lambda body: completion({"reason": "", "quality": True}),
    "another key": lambda body: completion({"reason": "", "quality": 7, CANARY: 10}),
    "a missing key": lambda body: completion({"reason": ""}),
    "not a number": lambda body: completion('{"reason": "", "quality": NaN}'),
    "an endless reason": lambda body: completion({"reason": "x" * 5000, "quality": 7}),
    "deep brackets": lambda body: "[" * 100_000,
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_answer_is_a_failure_and_never_a_number(kind, judged, tmp_path):
    with serving(WRONG[kind]) as (judge, endpoint):
        scores = measured("judge", judged(endpoint, weights={"quality": 1}, retries=2), inputs_of([0.5]))
    assert scores.failures[0].kind == "answer"
    assert scores.values.isnan().all()
    assert len(judge.bodies) == 1  # a wrong answer is not asked for again
    assert CANARY not in scores.failures[0].message
    assert not list((tmp_path / "answers").rglob("*.json"))


def test_one_wrong_answer_costs_no_other_image_its_score(judged):
    def answer(body):
        return "{" if images_of(body)[-1].mean() < 0.4 else by_brightness(body)

    with serving(answer) as (_, endpoint):
        scores = measured("judge", judged(endpoint), inputs_of([0.2, 0.6, 0.9]))
    assert set(scores.failures) == {0}
    assert scores.values[1:].tolist() == pytest.approx([0.6, 0.9])


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_server_that_stumbles_is_asked_again(status, judged):
    count = iter(range(10))

    def answer(handler, body):
        if next(count) < 2:
            return send(handler, status, f'{{"error": "{CANARY}"}}', Retry_After="0")
        return by_brightness(body)

    with serving(answer) as (judge, endpoint):
        assert judged(endpoint, retries=2)(inputs_of([0.5])).values.item() == pytest.approx(0.5)
        assert len(judge.bodies) == 3


@pytest.mark.parametrize(("status", "attempts"), [(500, 3), (429, 3), (400, 1), (401, 1), (404, 1)])
def test_attempts_are_counted_and_the_servers_words_are_not_repeated(status, attempts, judged):
    with serving(lambda handler, body: send(handler, status, f'{{"error": {{"message": "{CANARY}"}}}}')) as (
        judge,
        endpoint,
    ):
        failure = judged(endpoint, retries=2)(inputs_of([0.5])).failures[0]
    assert failure.kind == "status"
    assert str(status) in failure.message
    assert CANARY not in failure.message
    assert len(judge.bodies) == attempts


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/v1", "file:///etc/passwd", "http://169.254.169.254/latest"])
def test_no_redirection_is_followed(address, judged):
    with serving(lambda handler, body: send(handler, 302, "", Location=address)) as (judge, endpoint):
        failure = judged(endpoint, retries=2)(inputs_of([0.5])).failures[0]
    assert (failure.kind, len(judge.bodies)) == ("status", 1)
    assert address not in failure.message


def hanging(stop):
    def answer(handler, body):
        stop.wait(30)

    return answer


def trickling(stop):
    """A byte now and then: no single read ever takes long."""

    def answer(handler, body):
        handler.send_response(200)
        handler.end_headers()
        while not stop.wait(0.05):
            handler.wfile.write(b" ")
            handler.wfile.flush()

    return answer


def trickling_head(stop):
    def answer(handler, body):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while not stop.wait(0.05):
            handler.wfile.write(b"x")
            handler.wfile.flush()

    return answer


@pytest.mark.parametrize("way", [hanging, trickling, trickling_head])
def test_the_deadline_holds(way, judged):
    stop = threading.Event()
    with serving(way(stop)) as (_, endpoint):
        try:
            began = time.monotonic()
            scores = judged(endpoint, deadline=0.5, retries=2, parallel=2)(inputs_of([0.1, 0.9]))
            took = time.monotonic() - began
        finally:
            stop.set()
    assert {failure.kind for failure in scores.failures.values()} == {"timeout"}
    assert len(scores.failures) == 2
    assert took < 15  # a bound against hanging, not a measurement: the machine may be busy


def endless(handler, body, *, status=200):
    handler.send_response(status)
    handler.end_headers()
    while True:
        handler.wfile.write(b" " * 65536)


@pytest.mark.parametrize("answer", [
    endless,
    lambda handler, body: endless(handler, body, status=500),
    lambda handler, body: send(handler, 200, "", Content_Length="10000000000"),
])  # fmt: skip
def test_a_huge_body_is_not_read(answer, judged):
    with serving(answer) as (judge, endpoint):
        failure = judged(endpoint, retries=2)(inputs_of([0.5])).failures[0]
    assert (failure.kind, len(judge.bodies)) == ("too_large", 1)


def test_a_packed_body_is_not_unpacked(judged):
    import gzip

    bomb = gzip.compress(b" " * 10_000_000)
    with serving(lambda handler, body: send(handler, 200, bomb, Content_Encoding="gzip")) as (_, endpoint):
        assert judged(endpoint)(inputs_of([0.5])).failures[0].kind == "answer"


def closing(handler, body):
    handler.close_connection = True


def half(handler, body):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.close_connection = True


@pytest.mark.parametrize("answer", [closing, half])
def test_a_connection_that_breaks_is_tried_again_and_then_a_failure(answer, judged):
    with serving(answer) as (judge, endpoint):
        failure = judged(endpoint, retries=1)(inputs_of([0.5])).failures[0]
    assert failure.kind == "connection"
    assert "(2 attempts)" in failure.message
    assert len(judge.bodies) == 2


def test_where_nobody_is_found_not_everybody_is_sent(judged):
    with serving() as (_, endpoint):
        pass  # and it is gone
    reward = judged(endpoint, parallel=1)
    scores = reward(inputs_of([level / 10 for level in range(8)]))
    assert len(scores.failures) == 8
    assert {failure.kind for failure in scores.failures.values()} == {"connection"}


def test_the_key_goes_to_the_server_and_nowhere_else(judged, tmp_path, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", CANARY)
    with serving() as (judge, endpoint):
        reward = judged(endpoint, key_env="JUDGE_KEY")
        reward(inputs_of([0.5]))
        assert judge.headers[0]["authorization"] == f"Bearer {CANARY}"
    written = "".join(file.read_text() for file in tmp_path.rglob("*") if file.is_file())
    assert "bright" in written
    assert CANARY not in written + json.dumps(judge.bodies) + repr(vars(reward)) + json.dumps(reward.provenance)


def test_no_key_of_the_environment_goes_where_none_was_named(judged, monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, CANARY)
    with serving() as (judge, endpoint):
        judged(endpoint)(inputs_of([0.5]))
    assert CANARY not in json.dumps(judge.headers)


@pytest.mark.parametrize("value", [None, "", "two words", "line\nbreak", "ключ"])
def test_a_variable_without_a_key_is_an_error_without_its_value(value, judged, monkeypatch):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("JUDGE_KEY", value)
    with pytest.raises(RewardError, match="the environment variable JUDGE_KEY holds no key") as caught:
        judged("http://127.0.0.1:9/v1", key_env="JUDGE_KEY")
    assert not value or value not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"key_env": CANARY}, "key_env: expected the name of an environment variable"),
        ({"endpoint": f"http://user:{CANARY}@127.0.0.1/v1"}, "endpoint: expected an address without name"),
        ({"endpoint": f"http://127.0.0.1/v1?key={CANARY}"}, "endpoint: expected an address such as"),
        ({"endpoint": "file:///etc/passwd"}, "endpoint: expected an address such as"),
        ({"endpoint": "http://judge.example/v1", "key_env": "JUDGE_KEY"}, "endpoint: expected https://"),
        ({"weights": {"beauty": 1.0}}, "weights: expected some of instruction, preservation, reference, quality"),
        ({"weights": {"quality": 0.0}}, "weights: expected numbers of 0 or more, one above it"),
        ({"weights": {"quality": float("nan")}}, "weights: expected numbers of 0 or more"),
        ({"deadline": 0.0}, "deadline: expected a positive number"),
        ({"retries": 1000}, "retries: expected 0 to 10"),
        ({"cache": "answers"}, "cache: expected an absolute path"),
    ],
)
def test_wrong_settings_are_named_without_secrets(settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        VlmJudgeSettings(**settings)
    assert CANARY not in str(caught.value)


def test_who_judged_and_what_was_asked_is_known():
    one, two = VlmJudge(weights={"quality": 1}), VlmJudge(weights={"quality": 2})
    assert one.provenance == two.provenance
    assert one.provenance["model"] == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert len(one.provenance["prompt_sha256"]) == 64
    assert VlmJudge(weights={"instruction": 1}).provenance != one.provenance


def test_it_works_where_a_loop_runs_already(judged):
    async def notebook(reward):
        return reward(inputs_of([0.5])).values.item()

    with serving() as (_, endpoint):
        assert asyncio.run(notebook(judged(endpoint))) == pytest.approx(0.5)


def test_what_is_missing_is_named(judged):
    reward = judged("http://127.0.0.1:9/v1")
    image = torch.rand(1, 3, 16, 16)
    with pytest.raises(RewardError, match="needs prompts"):
        reward(RewardInputs(images=image, drafts=image))
    with pytest.raises(RewardError, match="needs drafts"):
        reward(RewardInputs(images=image, prompts=["x"]))
