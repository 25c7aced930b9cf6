"""One dimension of OmniRef-Bench's judge: a vision-language model behind any OpenAI-compatible endpoint.

Shapes: P rows · B samples.

All dimensions of a picture are asked in one request, whose answer is kept on disk: each measure takes its own mark.
"""

import json
from pathlib import Path

import torch
from torch import Tensor

from rewards import Failure, RewardInputs, Scores, pretrained
from rewards.judge_answers import Answers, answered, default_folder
from rewards.judge_asking import form, picture, request, said, schema
from rewards.judge_client import EXTRA, Body, Client
from rewards.judge_settings import check_asking, check_endpoint
from rlrefine.evaluation.omniref.rubric import DIMENSIONS, ROLES, SYSTEM
from rlrefine.evaluation.scorers import NotGivenError


class RubricJudge:
    """The judge's mark for one dimension, from 0 to 10.

    To a row without the reference that the dimension is about, or where the judge says that it cannot tell, it does not
    apply.

    Args:
        dimension: one of ``rlrefine.evaluation.omniref.rubric.DIMENSIONS``.
        model: the judge's name at the endpoint.
        endpoint: address of the server.
        key_env: name of the environment variable with the key; None for none.
        side: pixels of the longer side, to which larger images are made smaller.
        tokens: longest answer.
        deadline, retries, parallel, cache: as in ``rewards.VlmJudge``.

    Raises:
        NotGivenError: no endpoint is named.
        RewardError: a package is missing, or the variable holds no key.
        ValueError: the address holds a secret, or a bound is out of range.

    Reference: OmniRef-Bench of DyRef, arXiv 2606.26947, ``vlm_utils.py`` of its released code.
    """

    needs = frozenset({"prompts"})
    range = (0.0, 10.0)

    def __init__(
        self,
        *,
        dimension: str,
        model: str = "gemini-3-flash",
        endpoint: str | None = None,
        key_env: str | None = None,
        side: int = 512,
        tokens: int = 2048,
        deadline: float = 120.0,
        retries: int = 2,
        parallel: int = 8,
        cache: str | None = None,
    ) -> None:
        if endpoint is None:
            raise NotGivenError("a server of a vision-language model: judge.endpoint=ADDRESS judge.model=NAME")
        check_endpoint(endpoint, key_env)
        check_asking(deadline, retries, parallel, side, tokens, cache)
        for name in ("openai", "PIL", "pydantic"):
            pretrained.package(name, EXTRA)
        self.client = Client(endpoint=endpoint, key_env=key_env, deadline=deadline, retries=retries, parallel=parallel)
        self.client.key()  # said now and not with the first picture
        self.dimension, self.model, self.side, self.tokens = dimension, model, side, tokens
        self.answers = Answers(default_folder() if cache is None else Path(cache).expanduser())
        role = DIMENSIONS[dimension][0]
        self.uses = frozenset({f"references.{role}"} if role else ())

    def __call__(self, inputs: RewardInputs) -> Scores:
        rows = [sample // inputs.group_size for sample in range(len(inputs.images))]
        bodies = {sample: self.body(inputs, rows[sample], image) for sample, image in enumerate(inputs.images)}
        found = answered(self.client, bodies, self.answers, lambda body: form(_asked_in(body)))
        values, applicable = torch.zeros(len(rows)), torch.zeros(len(rows), dtype=torch.bool)
        failures: dict[int, Failure] = {}
        for sample, answer in found.items():
            if isinstance(answer, Failure):
                failures[sample] = answer
            elif answer[self.dimension] is not None:
                values[sample], applicable[sample] = float(answer[self.dimension]), True
        return Scores(values=values, failures=failures, applicable=applicable)

    def body(self, inputs: RewardInputs, row: int, image: Tensor) -> Body:
        """The request for one picture: prompt, references by what they are for, the picture, and what is asked."""
        assert inputs.prompts is not None  # it needs prompts
        shown = [said(f"Prompt: {json.dumps(inputs.prompts[row], ensure_ascii=False)}")]
        for role in ROLES:
            for number, reference in enumerate(inputs.references_of(row, role), start=1):
                shown += [said(f"{role.capitalize()} reference {number}:"), picture(reference, self.side)]
        asked = asked_of(inputs, row)
        questions = "\n".join(f"{name}: {DIMENSIONS[name][1]}" for name in asked)
        shown += [said("Generated image:"), picture(image, self.side), said(f"Dimensions:\n{questions}")]
        return request(self.model, self.tokens, SYSTEM, shown, schema(asked))


def _asked_in(body: Body) -> tuple[str, ...]:
    names = body["response_format"]["json_schema"]["schema"]["properties"]
    return tuple(name for name in DIMENSIONS if name in names)


def asked_of(inputs: RewardInputs, row: int) -> tuple[str, ...]:
    """The dimensions that apply to a row."""
    return tuple(name for name, (role, _) in DIMENSIONS.items() if role is None or inputs.references_of(row, role))
