import pytest
import torch

from rlrefine.errors import CheckpointError
from rlrefine.export.lora import Adapter, added_to, rank_of, stack


def adapter(name, rank, scale, seed, layer="to_q"):
    rng = torch.Generator().manual_seed(seed)
    down, up = torch.randn(rank, 6, generator=rng), torch.randn(5, rank, generator=rng)
    return Adapter(name=name, scale=scale, state={f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up})


def product(one):
    return one.scale * one.state["to_q.lora_B.weight"] @ one.state["to_q.lora_A.weight"]


def test_a_stack_is_the_sum_of_its_products():
    sft, grpo = adapter("sft", 3, 2.0, 0), adapter("grpo", 2, 0.5, 1)
    one = stack([sft, grpo])
    torch.testing.assert_close(product(one), product(sft) + product(grpo), rtol=0, atol=1e-6)
    assert one.scale == 1
    assert rank_of(one) == 5  # 3 + 2


def test_a_stack_by_hand():
    # 2·[1; 0]·[1 1] + 3·[0; 1]·[1 -1] = [2 2; 3 -3]
    one = stack(
        [
            Adapter(name="a", scale=2.0, state={"x.lora_A.weight": torch.tensor([[1.0, 1.0]]),
                                                "x.lora_B.weight": torch.tensor([[1.0], [0.0]])}),
            Adapter(name="b", scale=3.0, state={"x.lora_A.weight": torch.tensor([[1.0, -1.0]]),
                                                "x.lora_B.weight": torch.tensor([[0.0], [1.0]])}),
        ]
    )  # fmt: skip
    assert (one.state["x.lora_B.weight"] @ one.state["x.lora_A.weight"]).tolist() == [[2.0, 2.0], [3.0, -3.0]]


def test_one_adapter_of_scale_one_stays_as_it_is_bit_by_bit():
    only = adapter("sft", 3, 1.0, 0)
    one = stack([only])
    assert all(torch.equal(one.state[key], value) for key, value in only.state.items())


def test_adapters_on_different_layers_are_refused():
    with pytest.raises(CheckpointError, match="sft and grpo adapt different layers, the first is 'to_k"):
        stack([adapter("sft", 2, 1.0, 0), adapter("grpo", 2, 1.0, 1, layer="to_k")])


def test_merging_adds_the_product_to_the_weight_alone():
    weights = {"to_q.weight": torch.ones(5, 6), "to_q.bias": torch.ones(5)}
    sft = adapter("sft", 3, 2.0, 0)
    merged = added_to(weights, sft)
    torch.testing.assert_close(merged["to_q.weight"], 1 + product(sft), rtol=0, atol=1e-6)
    assert torch.equal(merged["to_q.bias"], weights["to_q.bias"])
    assert torch.equal(weights["to_q.weight"], torch.ones(5, 6))
