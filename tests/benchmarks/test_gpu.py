"""The benchmark of the full size, run with tiny sizes on a CPU: the same code, from the first line to the last."""

import json

import pytest
import torch

from benchmarks import gpu, meter
from pretraining import full_size

TINY = ["--size", "tiny", "--group", "4", "--steps", "4", "--rank", "4"]


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    file = tmp_path_factory.mktemp("benchmark") / "numbers.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(meter, "REPEATS", 1)
        gpu.main([*TINY, "--json", str(file)])
    return json.loads(file.read_text())


def test_every_phase_is_measured(numbers):
    assert [phase["name"] for phase in numbers["phases"]] == ["encode", "rollout", "decode", "reward", "update"]
    assert all(phase["seconds"] > 0 and phase["peak_memory"] is None for phase in numbers["phases"])
    assert numbers["choice"]["resolutions"] == [32]
    assert {"date", "device", "packages"} <= set(numbers["hardware"])


def test_operations_are_those_of_the_evaluations(numbers):
    """Of one evaluation: an update with recomputed blocks is 4 of them, less the frozen weights' own gradients."""
    counted = {phase["name"]: phase["tflop"] for phase in numbers["phases"]}
    # rollout: steps 0 and 1 shared, 2 and 3 for 4 samples; update: 2 micro-batches' first step, 4 samples' second
    evaluation, replayed = counted["rollout"] / (2 + 2 * 4), counted["update"] / (2 + 4)
    assert 3 < replayed / evaluation < 4


def test_a_cpu_has_no_memory_column(numbers, capsys):
    phases = [meter.Phase(**phase) for phase in numbers["phases"]]
    lines = meter.table(phases, 1e12, None).splitlines()
    assert len(lines) == 1 + 5 + 1
    assert all(line.endswith("not measured on a CPU") for line in lines[1:])


def test_operations_by_hand():
    left, right = torch.ones(3, 5), torch.ones(5, 7)
    assert meter.flop(lambda: left @ right) == 2 * 3 * 5 * 7
    query = torch.randn(2, 4, 16, 8)
    attention = torch.nn.functional.scaled_dot_product_attention
    assert meter.flop(lambda: attention(query, query, query)) == 2 * 4 * (2 * 16 * 16 * 8) * 2  # q·k and then ·v


def test_the_full_size_is_the_published_one():
    """Counted from the shapes alone; nothing is allocated."""
    with full_size.made_on(torch.device("meta"), torch.bfloat16):
        pipeline = full_size.full()
    parts = ("transformer", "text_encoder_2", "text_encoder", "vae")
    found = {name: sum(each.numel() for each in getattr(pipeline, name).parameters()) for name in parts}
    assert found == {
        "transformer": 11_901_408_320,
        "text_encoder_2": 4_762_310_656,
        "text_encoder": 123_060_480,
        "vae": 83_819_683,
    }
    assert {each.dtype for name in parts for each in getattr(pipeline, name).parameters()} == {torch.bfloat16}
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--size", "tiny", "--group", "5"], "--micro-batch 2 does not divide --group 5"),
        (["--size", "tiny", "--window", "4", "--steps", "4"], "--window 4 does not fit before the last of --steps 4"),
        pytest.param(
            ["--size", "full"],
            "--size full needs a GPU with 80 GB, and there is none",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="refused without GPUs only"),
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(given, message, capsys):
    with pytest.raises(SystemExit):
        gpu.main(given)
    assert message in capsys.readouterr().err
