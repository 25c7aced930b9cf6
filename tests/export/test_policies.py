"""Adapters of the policies with several references, read back by diffusers and peft."""

import pytest
import torch

from policies.settings import LoraSettings
from rlrefine.export.formats import DiffusersLora, PeftLora
from rlrefine.export.lora import Adapter, stack
from rlrefine.export.verify import Expected, trained_layers, velocities, verify

ROW = (2, (32, 32), 1.0)
LORA = LoraSettings(rank=2, alpha=4)
POLICIES = {
    "klein_base": ("make_flux2", {"variant": "klein_base"}),
    "dev": ("make_flux2", {"variant": "dev"}),
    "qwen": ("make_qwen", {}),
}


@pytest.mark.parametrize("kind", [DiffusersLora, PeftLora])
@pytest.mark.parametrize("name", POLICIES)
def test_what_is_exported_is_the_policy_when_it_is_read_back(request, name, kind, tmp_path):
    fixture, settings = POLICIES[name]
    make = request.getfixturevalue(fixture)
    policy, adapters = make(**settings), []
    for number, stage in enumerate(("sft", "grpo")):
        policy.stage.begin(stage, number, LORA)
        with torch.no_grad():
            for parameter in policy.stage.parameters.values():
                parameter.add_(0.05 * torch.randn_like(parameter))
        adapters.append(Adapter(name=stage, scale=2.0, state=policy.stage.adapter_state()))
    expected = Expected(layers=trained_layers(policy.trained), velocities=velocities(policy, *ROW))
    chosen = kind(adapter=stack(adapters), part="transformer", base="base")
    chosen.write(tmp_path, {})
    found = verify(chosen, tmp_path, make(**settings), expected, ROW)
    assert found.matched == found.expected == len(adapters[0].modules)
    assert found.from_base > 1000 * found.limit
