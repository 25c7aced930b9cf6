"""A vision-language model as a judge of edits, behind any OpenAI-compatible endpoint.

Shapes: P rows · B samples · H W image.

What is asked, word for word, is in ``rewards.judge_asking`` and ``rewards.judge_settings.DIMENSIONS``; ``provenance``
names the model and the hash of all of it.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from rewards import pretrained
from rewards.judge_answers import Answer, Answers, answered, default_folder
from rewards.judge_asking import LAYOUT, SYSTEM, conditions_shown, form, picture, questions, request, said, schema
from rewards.judge_client import EXTRA, Body, Client
from rewards.judge_settings import DIMENSIONS, check_asking, check_endpoint, judge_needs, usual_weights
from rewards.types import Failure, RewardError, RewardInputs, Scores


class VlmJudge:
    """Weighted mean of a judge's marks.

        r = Σ_d w_d·m_d / (10·Σ_d w_d),   over the dimensions d that apply to the sample, m_d from 0 to 10

    One request for each sample asks for all dimensions; ``reference`` is asked of rows that have references, and the
    judge itself may say that a dimension does not apply. Where none is left, the reward does not apply. Whatever is no
    answer of the asked form is a ``Failure`` of its sample: kinds ``connection``, ``timeout``, ``status``,
    ``too_large`` and ``answer``.

    Args:
        model: the judge's name at the endpoint.
        endpoint: address of the server.
        key_env: name of the environment variable with the key; None for none.
        weights: dimension → weight; 0 asks without counting. Rewards that ask the same and differ in their weights
            share their answers.
        side: pixels of the longer side, to which larger images are made smaller.
        tokens: longest answer.
        deadline: seconds for one sample.
        retries: further attempts after failures of connection or server.
        parallel: samples under way at once.
        keep: whether answers are kept on disk, by the content of all that was asked, the model's name included.
        cache: folder of the answers; by default ``judge`` in rlrefine's cache.

    Raises:
        RewardError: a package is missing, or the variable holds no key.

    Cost: a request for each sample that was not asked before, with two images and more: some thousands of tokens.

    Hacked by: what flatters the judge: sharp, glossy images whatever was asked, and writing that praises itself. Marks
        cluster at a few values, so groups often tie. Compare its marks with people's on your data first.

    Reference: Zheng et al., Judging LLM-as-a-Judge, arXiv 2306.05685; for edits VIEScore, arXiv 2312.14867.
    """

    uses: frozenset[str] = frozenset()
    range = (0.0, 1.0)

    def __init__(
        self,
        *,
        model: str = "Qwen/Qwen2.5-VL-7B-Instruct",
        endpoint: str = "http://127.0.0.1:8000/v1",
        key_env: str | None = None,
        weights: dict[str, float] | None = None,
        side: int = 1024,
        tokens: int = 512,
        deadline: float = 120.0,
        retries: int = 2,
        parallel: int = 8,
        keep: bool = True,
        cache: str | None = None,
    ) -> None:
        check_endpoint(endpoint, key_env)
        check_asking(deadline, retries, parallel, side, tokens, cache)
        for name in ("openai", "PIL", "pydantic"):
            pretrained.package(name, EXTRA)
        weights = usual_weights() if weights is None else weights
        self.weights = {name: weights[name] for name in DIMENSIONS if name in weights}
        self.client = Client(endpoint=endpoint, key_env=key_env, deadline=deadline, retries=retries, parallel=parallel)
        self.client.key()  # said now and not in the first step
        self.model, self.side, self.tokens = model, side, tokens
        self.answers = Answers(default_folder() if cache is None else Path(cache).expanduser()) if keep else None
        self.needs = judge_needs(self.weights)

    @property
    def provenance(self) -> dict[str, str]:
        """Who judges, and the hash of what is asked."""
        asked = json.dumps([SYSTEM, questions(list(self.weights)), LAYOUT, schema(tuple(self.weights))])
        return {"model": self.model, "prompt_sha256": hashlib.sha256(asked.encode()).hexdigest()}

    def __call__(self, inputs: RewardInputs) -> Scores:
        for need in sorted(self.needs):
            _condition(inputs, need)
        dimensions = [self._dimensions(inputs, row) for row in range(inputs.rows)]
        found: dict[int, Answer | Failure] = {}
        bodies: dict[int, Body] = {}
        for sample, image in enumerate(inputs.images):
            row = sample // inputs.group_size
            if not torch.isfinite(image).all():
                found[sample] = Failure("nan", "the image has pixels that are no numbers")
            elif dimensions[row]:
                bodies[sample] = self.body(inputs, row, image, dimensions[row])
        found |= answered(self.client, bodies, self.answers, lambda body: form(tuple(_asked(body))))
        return self._scores(inputs, found)

    def body(self, inputs: RewardInputs, row: int, image: Tensor, dimensions: list[str]) -> Body:
        """The request for one sample; it holds no secret."""
        shown = conditions_shown(inputs, row, self.side)
        shown += [said("Image after the edit:"), picture(image, self.side), said(questions(dimensions))]
        return request(self.model, self.tokens, SYSTEM, shown, schema(tuple(dimensions)))

    def _dimensions(self, inputs: RewardInputs, row: int) -> list[str]:
        """What is asked of a row."""
        return [name for name in self.weights if name != "reference" or inputs.reference_counts[row]]

    def _scores(self, inputs: RewardInputs, found: Mapping[int, Answer | Failure]) -> Scores:
        values, applies = torch.zeros(len(inputs.images)), torch.zeros(len(inputs.images), dtype=torch.bool)
        failures: dict[int, Failure] = {}
        for sample, answer in found.items():
            if isinstance(answer, Failure):
                failures[sample] = answer
                continue
            marks = {name: answer[name] for name in self.weights if answer.get(name) is not None}
            total = sum(self.weights[name] for name in marks)
            if total > 0:
                applies[sample] = True
                values[sample] = sum(self.weights[name] * mark for name, mark in marks.items()) / (10 * total)
        return Scores(values=values, failures=failures, applicable=applies)


def _asked(body: Body) -> list[str]:
    names = body["response_format"]["json_schema"]["schema"]["properties"]
    return [name for name in DIMENSIONS if name in names]


def _condition(inputs: RewardInputs, need: str) -> None:
    if need == "drafts":
        inputs.condition(need)
    elif inputs.prompts is None:
        raise RewardError(f"the reward needs {need}, and the rows have none")
