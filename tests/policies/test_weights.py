import pytest
import torch

from policies.errors import PolicyError
from policies.settings import LoraSettings
from tests.policies.calls import disturb

LORA = LoraSettings(rank=4, alpha=4)


@pytest.fixture
def velocity(kontext_policy):
    conditioning = kontext_policy.encode(["restore the text"], [[torch.rand(3, 32, 32)]])
    latents = torch.randn(1, 16, 32)

    def evaluate():
        with torch.no_grad():
            return kontext_policy.velocity(latents, torch.tensor([0.6]), conditioning, 2.5)

    return evaluate


@pytest.mark.parametrize("lora", [LORA, None], ids=["lora", "full"])
def test_a_stage_begins_where_the_one_before_ended(kontext_policy, velocity, lora):
    base = velocity()
    kontext_policy.stage.begin("first", 0, lora)
    assert torch.equal(velocity(), base) or lora is not None
    torch.testing.assert_close(velocity(), base, rtol=0, atol=1e-6)


def test_the_reference_is_the_policy_that_the_stage_began_with(kontext_policy, velocity):
    stage = kontext_policy.stage
    base = velocity()
    stage.begin("sft", 0, LORA)
    disturb(stage)
    after_sft = velocity()
    stage.begin("grpo", 1, LORA)
    disturb(stage)
    after_grpo = velocity()
    with stage.use("reference"):
        assert torch.equal(velocity(), after_sft)
    assert torch.equal(velocity(), after_grpo)
    assert not torch.allclose(after_sft, base)
    assert not torch.allclose(after_grpo, after_sft)


def test_full_training_keeps_a_frozen_copy_as_reference(kontext_policy, velocity):
    base = velocity()
    kontext_policy.stage.begin("sft", 0, None)
    disturb(kontext_policy.stage)
    changed = velocity()
    with kontext_policy.weights("reference"):
        assert torch.equal(velocity(), base)
    assert torch.equal(velocity(), changed)


def test_only_the_stages_own_adapter_ever_has_gradients(kontext_policy):
    stage = kontext_policy.stage
    stage.begin("sft", 0, LORA)
    stage.begin("grpo", 1, LORA)

    def trained():
        return {name for name, parameter in kontext_policy.trained.named_parameters() if parameter.requires_grad}

    own = set(stage.parameters)
    assert own
    assert all(".grpo." in name for name in own)
    assert trained() == own
    with stage.use("reference"):
        assert trained() == own
    assert trained() == own


def test_adapters_sit_on_attention_and_feed_forward_of_every_block(kontext_policy):
    kontext_policy.stage.begin("sft", 0, LORA)
    layers = {name.split(".lora_")[0] for name in kontext_policy.stage.parameters}
    # 2 double blocks: 8 attention and 4 feed-forward layers; 2 single blocks: 3 attention and 2 feed-forward layers
    assert len(layers) == 2 * 12 + 2 * 5
    assert "proj_out" not in layers  # the last layer of the network is none of a block


def test_the_average_moves_by_its_decay_and_comes_back(kontext_policy):
    stage = kontext_policy.stage
    stage.begin("sft", 0, LORA)
    stage.start_ema(0.75)
    name = next(iter(stage.parameters))
    with torch.no_grad():
        stage.parameters[name].fill_(0.0)
    stage.update_ema()  # the first update copies
    with torch.no_grad():
        stage.parameters[name].fill_(1.0)
    stage.update_ema()  # ¾·0 + ¼·1
    before = stage.state()[name].clone()
    with stage.use("ema"):
        torch.testing.assert_close(stage.parameters[name].detach(), torch.full_like(before, 0.25))
    assert torch.equal(stage.parameters[name].detach(), before)


def test_weights_come_back_after_an_error_too(kontext_policy):
    stage = kontext_policy.stage
    stage.begin("sft", 0, LORA)
    stage.start_ema(0.5)
    stage.update_ema()
    disturb(stage)
    before = {name: value.clone() for name, value in stage.state().items()}
    with pytest.raises(RuntimeError, match="inside"), stage.use("ema"):
        raise RuntimeError("inside")
    assert all(torch.equal(before[name], value) for name, value in stage.state().items())


def test_handed_over_weights_are_the_average_and_fit_another_policy(kontext_policy, make_kontext):
    stage = kontext_policy.stage
    stage.begin("sft", 0, LORA)
    stage.start_ema(0.5)
    stage.update_ema()
    disturb(stage)
    stage.update_ema()
    handed = stage.adapter_state()
    assert all(".sft." not in name for name in handed)
    other = make_kontext()
    other.stage.begin("sft", 123, LORA)
    other.stage.load_adapter_state(handed)
    for name, value in stage.ema_state().items():
        assert torch.equal(other.stage.state()[name], value)


def test_diffusers_reads_what_is_handed_over(kontext_policy, random_kontext, velocity, tmp_path):
    import copy

    kontext_policy.stage.begin("sft", 0, LORA)
    disturb(kontext_policy.stage)
    expected = velocity()
    pipe = copy.deepcopy(random_kontext)
    state = {f"transformer.{name}": value for name, value in kontext_policy.stage.adapter_state().items()}
    pipe.load_lora_weights(state)
    kontext_policy.pipeline.transformer = pipe.transformer
    kontext_policy.trained = pipe.transformer
    torch.testing.assert_close(velocity(), expected, rtol=0, atol=1e-6)


def test_weights_of_another_model_are_refused(kontext_policy):
    kontext_policy.stage.begin("sft", 0, LORA)
    state = kontext_policy.stage.state()
    name = next(iter(state))
    with pytest.raises(PolicyError, match="1 names differ"):
        kontext_policy.stage.load({key: value for key, value in state.items() if key != name})
    with pytest.raises(PolicyError, match="saved with shape"):
        kontext_policy.stage.load(state | {name: torch.zeros(1)})


def test_the_first_weights_follow_from_the_seed_alone(make_kontext):
    def first_weights(seed):
        torch.rand(7)  # whatever was drawn before
        policy = make_kontext()
        policy.stage.begin("sft", seed, LORA)
        return torch.cat([value.flatten() for value in policy.stage.state().values()])

    assert torch.equal(first_weights(3), first_weights(3))
    assert not torch.equal(first_weights(3), first_weights(4))


def test_no_two_stages_share_an_adapter(kontext_policy):
    kontext_policy.stage.begin("sft", 0, LORA)
    kontext_policy.stage.begin("grpo", 0, LORA)
    with pytest.raises(PolicyError, match="stage sft begins with hold an adapter of that name"):
        kontext_policy.stage.begin("sft", 0, LORA)


@pytest.mark.parametrize("name", ["ff", "attn", "weight", "net"])
def test_a_stage_may_be_called_like_a_layer(kontext_policy, name):
    kontext_policy.stage.begin(name, 0, LORA)
    trained = [key for key, value in kontext_policy.trained.named_parameters() if value.requires_grad]
    assert trained == list(kontext_policy.stage.parameters)
    assert all(f"lora_A.{name}." in key or f"lora_B.{name}." in key for key in trained)


def test_the_first_weights_leave_every_other_generator_alone(kontext_policy, monkeypatch):
    """A part that draws from the GPU's generator goes on where it was when a stage begins."""
    before = torch.get_rng_state()
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("the GPU's generator was started anew"))
    kontext_policy.stage.begin("sft", 0, LORA)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_stage_without_a_reference_keeps_no_copy_and_says_so(kontext_policy):
    kontext_policy.stage.begin("sft", 0, None, reference=False)
    assert not kontext_policy.stage._initial
    with (
        pytest.raises(PolicyError, match="stage sft was begun without a reference"),
        kontext_policy.stage.use("reference"),
    ):
        pass


@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_adapters_are_loaded_whole_or_not_at_all(kontext_policy, change):
    kontext_policy.stage.begin("sft", 0, LORA)
    disturb(kontext_policy.stage)
    state = kontext_policy.stage.adapter_state()
    if change == "missing":
        state.pop(next(iter(state)))
    else:
        state["transformer_blocks.9.attn.to_q.lora_A.weight"] = torch.zeros(4, 8)
    before = kontext_policy.stage.adapter_state()
    with pytest.raises(PolicyError, match=f"1 names differ, {change}"):
        kontext_policy.stage.load_adapter_state(state)
    for name, value in kontext_policy.stage.adapter_state().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("lora", [LORA, None], ids=["lora", "full"])
def test_old_weights_follow_and_come_back(kontext_policy, velocity, lora):
    stage = kontext_policy.stage
    stage.begin("nft", 0, lora)
    stage.start_old()
    start, name = velocity(), next(iter(stage.parameters))
    before = stage.state()[name].clone()
    disturb(stage)
    changed, moved = velocity(), stage.state()[name].clone()
    with kontext_policy.weights("old"):
        assert torch.equal(velocity(), start)
    assert torch.equal(velocity(), changed)
    stage.update_old(0.75)
    torch.testing.assert_close(stage.old_state()[name], 0.75 * before + 0.25 * moved)  # ¾ of itself remains
    stage.update_old(0.0)
    with stage.use("old"):
        assert torch.equal(velocity(), changed)


def test_old_weights_are_their_own_tensors(kontext_policy):
    """Neither training nor a saved state that is used elsewhere reaches into them."""
    stage = kontext_policy.stage
    stage.begin("nft", 0, LORA)
    stage.start_old()
    saved = {name: value.clone() for name, value in stage.old_state().items()}
    disturb(stage)
    assert all(torch.equal(value, saved[name]) for name, value in stage.old_state().items())
    stage.update_old(0.5)
    assert any(not torch.equal(value, saved[name]) for name, value in stage.old_state().items())
    stage.load_old(saved)
    saved[next(iter(saved))].add_(1.0)
    assert any(not torch.equal(value, saved[name]) for name, value in stage.old_state().items())


def test_without_old_weights_nothing_stands_in_for_them(kontext_policy):
    kontext_policy.stage.begin("grpo", 0, LORA)
    with pytest.raises(PolicyError, match="stage grpo keeps no old weights"), kontext_policy.weights("old"):
        pass
    kontext_policy.stage.start_old()
    kontext_policy.stage.begin("later", 0, LORA)
    assert not kontext_policy.stage.keeps_old


@pytest.fixture
def two_stages(kontext_policy):
    """Two adapters over each other, both away from their start."""
    stage = kontext_policy.stage
    for name in ("sft", "grpo"):
        stage.begin(name, 0, LORA)
        disturb(stage)
    return stage


def bits(policy):
    return {name: value.clone() for name, value in policy.trained.state_dict().items()}


def test_merged_adapters_compute_the_same_without_being_computed(kontext_policy, two_stages, velocity):
    passed = []
    for name, module in kontext_policy.trained.named_modules():
        if name.endswith((".lora_A.sft", ".lora_A.grpo")):
            module.register_forward_hook(lambda *given: passed.append(1))
    apart, before = velocity(), bits(kontext_policy)
    assert passed
    passed.clear()
    with two_stages.merged():
        together = velocity()
        assert not passed
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-5)
    assert torch.equal(velocity(), apart)
    assert all(torch.equal(before[name], value) for name, value in kontext_policy.trained.state_dict().items())


def test_subtracting_again_would_not_restore_every_bit(kontext_policy, two_stages):
    """Why the weights from before are kept: this is what peft itself does."""
    before = bits(kontext_policy)
    for layer in two_stages._adapted():
        layer.merge()
        layer.unmerge()
    after = kontext_policy.trained.state_dict()
    assert not all(torch.equal(before[name], value) for name, value in after.items())


@pytest.mark.parametrize("where", ["inside", "while merging"])
def test_merged_weights_come_back_after_an_error_too(kontext_policy, two_stages, velocity, monkeypatch, where):
    apart, before = velocity(), bits(kontext_policy)

    def stop(*given):
        raise RuntimeError("stop")

    def merge_and_stop():
        with two_stages.merged():
            stop()

    with monkeypatch.context() as patch:
        if where == "while merging":
            patch.setattr(two_stages._adapted()[5], "get_delta_weight", stop)
        with pytest.raises(RuntimeError, match="stop"):
            merge_and_stop()
    assert all(torch.equal(before[name], value) for name, value in kontext_policy.trained.state_dict().items())
    assert torch.equal(velocity(), apart)


def test_other_weights_can_be_merged_but_not_chosen_inside(kontext_policy, two_stages, velocity):
    with two_stages.use("reference"):
        reference = velocity()
        with two_stages.merged():
            torch.testing.assert_close(velocity(), reference, rtol=0, atol=1e-5)
        assert torch.equal(velocity(), reference)
    two_stages.start_ema(0.5)
    for which in ("reference", "ema"):
        refused = pytest.raises(PolicyError, match=f"the {which} weights cannot be used while")
        with two_stages.merged(), refused, two_stages.use(which):
            pass


def test_without_adapters_there_is_nothing_to_merge(kontext_policy, velocity):
    kontext_policy.stage.begin("sft", 0, None)
    apart = velocity()
    with kontext_policy.stage.merged():
        assert torch.equal(velocity(), apart)


def test_divided_weights_are_not_merged(kontext_policy, two_stages):
    two_stages.access = object()
    with pytest.raises(PolicyError, match="that every process holds as a whole"), two_stages.merged():
        pass
