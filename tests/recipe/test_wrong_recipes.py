"""Twenty and more wrong recipes, and the message that each must get: where, what, and what to do."""

import pytest

from rewards.registry import REWARDS
from rlrefine.errors import RecipeError
from rlrefine.recipe.load import load_recipe

GOOD = """\
policy: {name: flux_kontext, checkpoint: tiny-kontext, prompt_tokens: 16}
data: {train: "photos:train", validation: "photos:validation", heldout: "photos:heldout"}
rewards:
  patch: {name: patch_perceptual, patch: 16}
  pixel: {name: masked_pixel, weight: 0.5}
stages:
  sft: {objective: sft, steps: 20, prompts_per_step: 4, optimizer: {lr: 1.0e-3}}
  grpo: {objective: grpo, init: sft, steps: 4, prompts_per_step: 4, group_size: 4, optimizer: {lr: 1.0e-4}}
  more: {objective: sft, continues: sft, same_evaluations_as: grpo, prompts_per_step: 4, optimizer: {lr: 2.0e-3}}
"""


def problems(text, tmp_path, *overrides):
    file = tmp_path / "r.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(file, overrides)
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in caught.value.problems]


def test_the_recipe_that_is_broken_below_is_right(tmp_path):
    (tmp_path / "r.yaml").write_text(GOOD)
    recipe = load_recipe(tmp_path / "r.yaml")
    assert list(recipe.stages) == ["sft", "grpo", "more"]
    assert recipe.rewards["pixel"].weight == 0.5


WRONG = {
    "unknown section": ("stages:", "stagess: {}\nstages:", "r.yaml:6: stagess: found an unknown key, expected a known one; did you mean 'stages'?"),
    "unknown key": ("weight: 0.5", "weigth: 0.5", "r.yaml:5: rewards.pixel.weigth: found an unknown key, expected a known one; did you mean 'weight'?"),
    "unknown nested key": ("{lr: 1.0e-3}", "{lr: 1.0e-3, beta: 0.9}", "r.yaml:7: stages.sft.optimizer.beta: found an unknown key, expected a known one; did you mean 'betas'?"),
    "unknown key of a component": ("patch: 16", "pach: 16", "r.yaml:4: rewards.patch.pach: found an unknown key, expected a known one; did you mean 'patch'?"),
    "wrong type": ("steps: 20", "steps: many", "r.yaml:7: stages.sft.steps: found 'many', expected a whole number"),
    "a fraction for a count": ("group_size: 4", "group_size: 4.5", "r.yaml:8: stages.grpo.group_size: found 4.5, expected a whole number"),
    "a number as text": ("lr: 1.0e-3", 'lr: "1e-3"', "r.yaml:7: stages.sft.optimizer.lr: found '1e-3', expected a number; this is text; write 0.001 without quotes"),
    "no for a number": ("lr: 1.0e-3", "lr: no", "r.yaml:7: stages.sft.optimizer.lr: found False, expected a number; YAML reads no, off and false as false, yes, on and true as true; write a number, or quote the text"),
    "not a number": ("lr: 1.0e-3", "lr: .nan", "r.yaml:7: stages.sft.optimizer.lr: found nan, expected a finite number"),
    "infinite": ("weight: 0.5", "weight: .inf", "r.yaml:5: rewards.pixel.weight: found inf, expected a finite number"),
    "octal": ("steps: 20", "steps: 020", "r.yaml:7: stages.sft.steps: found 020, which YAML does not read as written, expected a plain number; write a decimal number, or quote it if it is text"),
    "out of range": ("lr: 1.0e-3", "lr: -1.0e-3", "r.yaml:7: stages.sft.optimizer.lr: found -0.001, expected a positive number"),
    "unknown reward": ("masked_pixel", "maskd_pixel", "r.yaml:5: rewards.pixel.name: found 'maskd_pixel', expected a registered reward; did you mean 'masked_pixel'?"),
    "unknown policy": ("flux_kontext", "flux_kontex", "r.yaml:1: policy.name: found 'flux_kontex', expected a registered policy; did you mean 'flux_kontext'?"),
    "unknown objective": ("objective: grpo", "objective: gpro", "r.yaml:8: stages.grpo.objective: found 'gpro', expected a registered objective; did you mean 'grpo'?"),
    "wrong component setting": ("patch: 16", "metric: sim", "r.yaml:4: rewards.patch.metric: found 'sim', expected one of ssim, correlation, l1, l2, charbonnier; did you mean 'ssim'?"),
    "component setting out of range": ("patch: 16", "patch: 5", "r.yaml:4: rewards.patch.patch: found 5, expected at least 7 pixels, the window of SSIM"),
    "relative folder of weights": ("name: patch_perceptual", "name: patch_dreamsim, cache: weights", "r.yaml:4: rewards.patch.cache: found 'weights', expected an absolute path, or one that begins with ~"),
    "not a fingerprint": ("name: patch_perceptual", "name: patch_dreamsim, sha256: abc", "r.yaml:4: rewards.patch.sha256: found 'abc', expected 64 hexadecimal digits in lower case"),
    "stride of one patch": ("patch: 16", "patch: null, stride: 4", "r.yaml:4: rewards.patch.stride: found 4, expected null where the whole image is one patch"),
    "required key missing": (", optimizer: {lr: 1.0e-3}", "", "r.yaml:7: stages.sft.optimizer: found nothing, expected a value: the key is required"),
    "name missing": ("{name: masked_pixel, weight: 0.5}", "{weight: 0.5}", f"r.yaml:5: rewards.pixel.name: found nothing, expected the name of the reward; known: {', '.join(REWARDS)}"),
    "indivisible batch": ("group_size: 4", "group_size: 4, micro_batch: 6", "r.yaml:8: stages.grpo.micro_batch: found 6, and 4 prompts × 4 samples = 16 leaves a remainder of 4, expected a divisor; try one of 1, 2, 4, 8, 16"),
    "indivisible groups": ("prompts_per_step: 4, group_size: 4", "prompts_per_step: 3, group_size: 4, micro_batch: 6", "r.yaml:8: stages.grpo.micro_batch: found 6 with groups of 4, expected whole groups, or a divisor of one group; try 4"),
    "stochastic algorithm on an ODE": ("group_size: 4", "group_size: 4, rollout: {dynamics: ode}", "r.yaml:8: stages.grpo.rollout.dynamics: found 'ode', expected a stochastic step for grpo, which learns from the noise it draws; use flow_sde"),
    "no noise": ("group_size: 4", "group_size: 4, rollout: {noise: 0.0}", "r.yaml:8: stages.grpo.rollout.noise: found 0, expected a positive number for grpo, which learns from the noise it draws; 0.7 is usual"),
    "window too long": ("group_size: 4", "group_size: 4, rollout: {steps: 4, stochastic: {size: 5}}", "r.yaml:8: stages.grpo.rollout.stochastic: found a window of 5 steps that begins at 0 to 0, expected one that lies within the rollout's 4 steps; make it smaller or let it begin earlier"),
    "noise beyond all of it": ("group_size: 4", "group_size: 4, rollout: {dynamics: cps, noise: 1.2}", "r.yaml:8: stages.grpo.rollout.noise: found 1.2, expected at most 1 for cps, where it is a share; 0.8 is usual"),
    "noise where there is none": ("group_size: 4", "group_size: 4, rollout: {steps: 4, dynamics: cps, stochastic: {last: 2}}", "r.yaml:8: stages.grpo.rollout.stochastic: found noise that may be drawn at the last of 4 steps, expected steps before it, since cps draws no noise there; set last: 1 or less"),
    "clipping without effect": ("group_size: 4", "group_size: 4, updates_per_rollout: 1", "r.yaml:8: stages.grpo.clip_range: found 0.0001 with one update per rollout, expected null, since the ratio is exactly 1 then and nothing is ever clipped; set clip_range: null, or updates_per_rollout: 2"),
    "KL without effect": ("group_size: 4", "group_size: 4, updates_per_rollout: 1, clip_range: null, kl: {coef: 0.1, target: old}", "r.yaml:8: stages.grpo.kl.target: found 'old' with one update per rollout, expected another target, since the divergence and its gradient are exactly 0 then; set kl.target: reference, or updates_per_rollout: 2"),
    "unknown init": ("init: sft", "init: stf", "r.yaml:8: stages.grpo.init: found 'stf', expected checkpoint, an earlier stage or RUN/STAGE; did you mean 'sft'?"),
    "steps missing": ("steps: 20, ", "", "r.yaml:7: stages.sft.steps: found nothing, expected a number of steps; or same_evaluations_as: another stage"),
    "warm-up longer than the stage": ("{lr: 1.0e-3}", "{lr: 1.0e-3, warmup: 20}", "r.yaml:7: stages.sft.optimizer.warmup: found 20, expected fewer than the stage's 20 steps; shorten the warm-up"),
    "continuing nothing": ("continues: sft", "continues: stf", "r.yaml:9: stages.more.continues: found 'stf', expected an earlier stage; did you mean 'sft'?"),
    "continuing itself": ("continues: sft", "continues: more", "r.yaml:9: stages.more.continues: found 'more', expected an earlier stage; known: grpo, sft"),
    "continuing another objective": ("continues: sft", "continues: grpo", "r.yaml:9: stages.more.continues: found 'grpo', expected an earlier stage whose objective is sft too; use init to begin from its weights"),
    "a run that is not there": ("init: sft", "init: runs/nothing/sft", "r.yaml:8: stages.grpo.init: found 'runs/nothing/sft', expected RUN/STAGE, where the run has finished the stage"),
    "a window that ends before it begins": ("group_size: 4", "group_size: 4, rollout: {stochastic: {first: 3, last: 1}}", "r.yaml:8: stages.grpo.rollout.stochastic.last: found 1, expected at least first (3)"),
    "a negative warm-up": ("{lr: 1.0e-3}", "{lr: 1.0e-3, warmup: -5}", "r.yaml:7: stages.sft.optimizer.warmup: found -5, expected 0 or more steps"),
    "a gradient limit that turns it round": ("{lr: 1.0e-3}", "{lr: 1.0e-3, max_grad_norm: -1.0}", "r.yaml:7: stages.sft.optimizer.max_grad_norm: found -1.0, expected a positive number or null"),
    "decay out of range": ("{lr: 1.0e-3}", "{lr: 1.0e-3, betas: [1.5, 0.9]}", "r.yaml:7: stages.sft.optimizer.betas: found [1.5, 0.9], expected two numbers from 0 to below 1"),
    "an adapter without effect": ("prompt_tokens: 16", "prompt_tokens: 16, lora: {alpha: 0}", "r.yaml:1: policy.lora.alpha: found 0, expected at least 1"),
    "eight bits that are trained": ("prompt_tokens: 16", "prompt_tokens: 16, quantize: int8, lora: null", "r.yaml:1: policy.quantize: found int8, expected null without lora, as 8-bit weights cannot be trained"),
    "eight bits that are sent": ("prompt_tokens: 16}", "prompt_tokens: 16, quantize: int8}\nengine: {name: ddp}", "r.yaml:1: policy.quantize: found 'int8' with engine ddp, expected null, or engine.name: single; engines of several processes cannot hand 8-bit weights round"),
    "nothing that could be moved": ("stages:", "engine: {name: ddp, offload: optimizer}\nstages:", "r.yaml:6: engine.offload: found optimizer, expected null, since only deepspeed moves anything"),
    "parameters that are not divided": ("stages:", "engine: {name: deepspeed, offload: parameters}\nstages:", "r.yaml:6: engine.offload: found parameters, expected optimizer, or zero_stage: 3 for parameters"),
    "masked positions without a draft": ("prompt_tokens: 16", "prompt_tokens: 16, position_ids: mask, images: [reference, draft]", "r.yaml:1: policy.images: found reference, draft, expected draft first and once with position_ids: mask"),
    "an unknown attention": ("prompt_tokens: 16", "prompt_tokens: 16, attention: restrict", "r.yaml:1: policy.attention: found 'restrict', expected one of full, restricted; did you mean 'restricted'?"),
    "nothing to learn from": ("{name: patch_perceptual, patch: 16}\n  pixel: {name: masked_pixel, weight: 0.5}", "{name: patch_perceptual, weight: 0.0}", "r.yaml:3: rewards: found no reward with a weight other than 0, expected at least one for stage grpo; for example pixel: {name: masked_pixel}"),
    "unknown rows": ("photos:heldout", "photos:test", "r.yaml:2: data.heldout: found 'photos:test', expected a folder with metadata.jsonl, or photos, scenes, fur, brick, tissue, stars, moon-rock with :train, :validation or :heldout; no built-in rows 'photos:test'; known: photos:train, photos:validation, photos:heldout"),
    "held-out rows that are trained on": ("photos:heldout", "photos:train", "r.yaml:2: data.heldout: found 'photos:train', expected rows that are not trained on; give it a folder of its own"),
    "a size that no token fits": ("data: {", "data: {size: [64, 60], ", "r.yaml:2: data.size: found 64 × 60, expected multiples of 8 pixels for this model; try 64 × 64"),
    "a patch larger than the image": ("patch: 16", "patch: 80", "r.yaml:4: rewards.patch.patch: found 80 pixels, expected no more than the image's 64; make the patch smaller"),
    "a stage label that is no name": ("  sft:", "  draft:", "r.yaml:7: stages.draft: found 'draft', expected lower-case letters, digits and _, not one of base, checkpoint, draft, wrong_reference; rename the stage"),
    "a reward that is called as all together": ("  pixel:", "  total:", "r.yaml:5: rewards.total: found 'total', expected lower-case letters, digits and _, not one of total; rename the reward"),
    "a reward label that no arm could be named by": ("  pixel:", "  <b>Pixel:", "r.yaml:5: rewards.<b>Pixel: found '<b>Pixel', expected lower-case letters, digits and _, not one of total; rename the reward"),
    "reading the environment": ("lr: 1.0e-3", "lr: '${oc.env:HOME}'", "r.yaml:7: stages.sft.optimizer.lr: found '${oc.env:HOME}', expected a reference to another key such as ${run.seed}; a recipe cannot read the environment or call functions"),
    "a reference to nothing": ("steps: 20", "steps: '${run.steps}'", "r.yaml:7: stages.sft.steps: found Interpolation key 'run.steps' not found, expected a reference that stages.sft.steps can follow"),
    "a list of another length": ("data: {", "data: {size: [64, 64, 3], ", "r.yaml:2: data.size: found 3 values, expected 2"),
    "text for a section": ("{name: flux_kontext, checkpoint: tiny-kontext, prompt_tokens: 16}", "flux_kontext", "r.yaml:1: policy: found 'flux_kontext', expected a mapping"),
}  # fmt: skip

GRPO = "objective: grpo, init: sft, steps: 4, prompts_per_step: 4, group_size: 4"
DPO = GRPO.replace("objective: grpo", "objective: online_dpo")
WRONG |= {
    f"preferences: {case}": (GRPO, f"{DPO}, {key}", f"r.yaml:8: stages.grpo.{message}")
    for case, key, message in [
        ("a group that is split", "micro_batch: 2", "micro_batch: found 2 with groups of 4, expected whole groups, whose samples are compared with each other; try 4"),
        ("groups that are split", "micro_batch: 6", "micro_batch: found 6, and 4 prompts × 4 samples = 16 leaves a remainder of 4, expected a divisor; try one of 4, 8, 16"),
        ("no noise", "rollout: {dynamics: ode}", "rollout.dynamics: found 'ode', expected a stochastic step for online_dpo, which learns from the noise it draws; use flow_sde"),
        ("noise of no size", "rollout: {noise: 0.0}", "rollout.noise: found 0, expected a positive number for online_dpo, which learns from the noise it draws; 0.7 is usual"),
        ("a window too long", "rollout: {steps: 4, stochastic: {size: 5}}", "rollout.stochastic: found a window of 5 steps that begins at 0 to 0, expected one that lies within the rollout's 4 steps; make it smaller or let it begin earlier"),
        ("a key of the other algorithm", "clip_range: 0.1", "clip_range: found an unknown key, expected a known one; known: adapter, aggregation, beta, compare, continues, ema, group_size, init, log_prob, lora, micro_batch, objective, optimizer, prompts_per_step, ratio_tolerance, reference_clip, reward_batch, rollout, rollout_batch, same_evaluations_as, score_scale, steps, updates_per_rollout"),
        ("no pull to the reference", "beta: 0.0", "beta: found 0.0, expected a positive number"),
        ("a clip beyond all of it", "reference_clip: 1.0", "reference_clip: found 1.0, expected between 0 and 1, or null"),
        ("an unknown comparison", "compare: best", "compare: found 'best', expected one of ranking, best_worst; known: best_worst, ranking"),
    ]
}  # fmt: skip


WRONG |= {
    f"comparisons: {case}": (GRPO, f"{GRPO}, {key}", f"r.yaml:8: stages.grpo.{message}")
    for case, key, message in [
        ("a word for a clip", "clip_range: wide", "clip_range: found 'wide', expected a number or a list"),
        ("half a pair of clips", "clip_range: [0.1]", "clip_range[1]: found nothing, expected a value: the key is required"),
        ("a negative clip", "clip_range: [0.1, -0.1]", "clip_range: found [0.1, -0.1], expected a positive number, a pair of them or null"),
        ("two clips with one update", "clip_range: [0.1, 0.2], updates_per_rollout: 1", "clip_range: found 0.1 and 0.2 with one update per rollout, expected null, since the ratio is exactly 1 then and nothing is ever clipped; set clip_range: null, or updates_per_rollout: 2"),
        ("an unknown scale", "advantage_scale: global", "advantage_scale: found 'global', expected one of group, batch, none; known: batch, group, none"),
        ("the difficulty of no reward", "difficulty: {reward: pixl}", "difficulty.reward: found 'pixl', expected the label of a reward; did you mean 'pixel'?"),
        ("limits that leave out 1", "difficulty: {reward: pixel, limits: [2.0, 5.0]}", "difficulty.limits: found [2.0, 5.0], expected two positive numbers around 1"),
        ("half a filter", "drop_groups: {mean_above: 0.9}", "drop_groups.spread_below: found nothing, expected a value: the key is required"),
    ]
}  # fmt: skip
NFT = GRPO.replace("objective: grpo", "objective: nft")
WRONG |= {
    f"forward process: {case}": (GRPO, f"{NFT}, {key}", f"r.yaml:8: stages.grpo.{message}")
    for case, key, message in [
        ("no mixture", "beta: 0.0", "beta: found 0.0, expected a positive number"),
        ("an old policy that never moves", "old: {limit: 1.0}", "old.limit: found 1.0, expected from 0 to below 1"),
        ("no noise", "rollout: {dynamics: ode}", "rollout.dynamics: found 'ode', expected a stochastic step for nft, which learns from the noise it draws; use flow_sde"),
        ("no level", "levels: 0", "levels: found 0, expected at least 1"),
    ]
}  # fmt: skip


def test_a_stage_of_pairs_needs_rows_that_have_them(tmp_path):
    rows = tmp_path / "rows"
    rows.mkdir()
    (rows / "a.png").write_bytes(b"")
    (rows / "metadata.jsonl").write_text('{"prompt": "restore", "draft_file_name": "a.png"}\n')
    text = GOOD.partition("data:")[0].replace("policy: {", "policy: {images: [draft], ")
    text += f"data: {{train: {rows}}}\n"
    text += "stages: {dpo: {objective: offline_dpo, steps: 2, optimizer: {lr: 1.0e-3}}}\n"
    expected = (
        "r.yaml:2: data.train: found rows without chosen_file_name, expected one in every row: stage dpo needs pairs; "
        "add the column"
    )
    assert problems(text, tmp_path) == [expected]


STOCHASTIC = [
    ("a size for all steps", "choose: all, size: 2", "size: found 2, expected no such key beside choose: all"),
    ("steps for a window", "steps: [1, 2]", "steps: found [1, 2], expected no such key beside choose: window"),
    ("a stride for what does not slide", "size: 2, stride: 2", "stride: found 2, expected no such key beside choose: window"),
    ("a list without steps", "choose: list", "steps: found null, expected a list of steps for choose: list"),
    ("the same step twice", "choose: list, steps: [1, 1]", "steps: found [1, 1], expected different steps, 0 or later"),
    ("no step", "choose: sample, steps: []", "steps: found [], expected different steps, 0 or later"),
    ("a sample of more than there are", "choose: sample, steps: [1, 2], size: 3", "size: found 3, expected at most the 2 listed steps"),
    ("more than all steps", "choose: fraction, fraction: 1.5", "fraction: found 1.5, expected above 0 and at most 1"),
    ("no stay", "choose: sliding, dwell: 0", "dwell: found 0, expected at least 1"),
    ("a window that begins before it may", "first: 3, last: 2", "last: found 2, expected at least first (3)"),
    ("an unknown choice", "choose: slide", "choose: found 'slide', expected one of all, list, sample, fraction, window, sliding; did you mean 'sliding'?"),
]  # fmt: skip
WRONG |= {
    f"stochastic: {case}": ("group_size: 4", f"group_size: 4, rollout: {{stochastic: {{{keys}}}}}", f"r.yaml:8: stages.grpo.rollout.stochastic.{message}")
    for case, keys, message in STOCHASTIC
}  # fmt: skip
WRONG |= {
    f"rollout: {case}": ("group_size: 4", f"group_size: 4, rollout: {{{keys}}}", f"r.yaml:8: stages.grpo.rollout.{message}")
    for case, keys, message in [
        ("a step that is not there", "steps: 4, stochastic: {choose: list, steps: [1, 4]}", "stochastic.steps: found [1, 4], expected steps that lie within the rollout's 4 steps; the last step is 3"),
        ("a quiet step in a list", "steps: 4, dynamics: ddim, stochastic: {choose: list, steps: [1, 3]}", "stochastic.steps: found noise that may be drawn at the last of 4 steps, expected steps before it, since ddim draws no noise there; drop 3"),
        ("a sliding window too long", "steps: 4, stochastic: {choose: sliding, size: 5}", "stochastic: found a window of 5 steps that begins at 0 to 0, expected one that lies within the rollout's 4 steps; make it smaller or let it begin earlier"),
        ("a share above one", "dynamics: euler_ancestral, noise: 1.5", "noise: found 1.5, expected at most 1 for euler_ancestral, where it is a share; 0.8 is usual"),
        ("a single step that is quiet", "steps: 1, dynamics: cps, stochastic: {choose: all}", "stochastic: found noise that may be drawn at the last of 1 steps, expected steps before it, since cps draws no noise there; make more steps"),
    ]
}  # fmt: skip

MERGING = GOOD.replace("group_size: 4", "group_size: 4, rollout: {merge_adapters: true}")
UNMERGEABLE = [
    ("policy.lora=null", "true without policy.lora, expected false, since there is nothing to merge; drop it"),
    ("policy.quantize=int8", "true with policy.quantize 'int8', expected false, or quantize: null; drop one of the two"),
    ("engine={name: deepspeed, zero_stage: 3}", "true with engine deepspeed and zero_stage 3, expected an engine that keeps every weight whole; use ddp, or zero_stage: 2"),
    ("engine.name=fsdp2", "true with engine fsdp2, expected an engine that keeps every weight whole; use ddp, or zero_stage: 2"),
]  # fmt: skip


@pytest.mark.parametrize(("override", "message"), UNMERGEABLE)
def test_what_cannot_be_merged_is_said_before_anything_starts(override, message, tmp_path):
    found = problems(MERGING, tmp_path, override)
    assert found == [f"r.yaml:8: stages.grpo.rollout.merge_adapters: found {message}"]


@pytest.mark.parametrize("case", WRONG)
def test_each_mistake_gets_its_message(case, tmp_path):
    old, new, message = WRONG[case]
    assert GOOD.count(old) >= 1
    found = problems(GOOD.replace(old, new, 1), tmp_path)
    assert message in found
    if case != "a stage label that is no name":  # there the next stage's init fails with it, rightly
        assert found == [message]


def test_all_mistakes_are_found_together(tmp_path):
    text = GOOD.replace("weight: 0.5", "weigth: 0.5")  # unknown key
    text = text.replace("steps: 20", "steps: 020")  # octal
    text = text.replace("lr: 1.0e-3", 'lr: "1e-3"')  # text
    text = text.replace("patch: 16", "patch: 5")  # range of a component
    text = text.replace("group_size: 4", "group_size: 4, micro_batch: 6, updates_per_rollout: 1")  # across keys
    text = text.replace("photos:heldout", "photos:train")  # across sections
    found = problems(text, tmp_path, "run.seed=1.5")
    places = [line.split(": found ")[0] for line in found]
    assert sorted(places) == sorted(
        [
            "r.yaml:5: rewards.pixel.weigth",
            "r.yaml:7: stages.sft.steps",
            "r.yaml:7: stages.sft.optimizer.lr",
            "r.yaml:4: rewards.patch.patch",
            "r.yaml:8: stages.grpo.micro_batch",
            "r.yaml:8: stages.grpo.clip_range",
            "r.yaml:2: data.heldout",
            "command line (run.seed=1.5): run.seed",
        ]
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("policy: {name: a\n", "expected ',' or '}'"),
        ("policy:\n\t- a\n", "cannot start any token"),
        ("a: 1\na: 2\n", "duplicate key"),
        ("a: !!python/object:os.system {}\n", "could not determine a constructor"),
        ("- a\n- b\n", "expected a mapping with policy, data and stages"),
        ("", "policy: found nothing"),
    ],
)
def test_what_is_no_recipe_at_all(text, message, tmp_path):
    assert message in "\n".join(problems(text, tmp_path))


def test_a_typo_one_letter_away_is_recognised(tmp_path):
    """Of all one-letter deletions in the keys of the recipe, nine in ten get the right suggestion."""
    import re

    keys = sorted(set(re.findall(r"(\w+):", GOOD)) - {"photos", "sft", "grpo", "more", "patch", "pixel", "lr"})
    tried = right = 0
    for key in keys:
        for place in range(len(key)):
            typo = key[:place] + key[place + 1 :]
            if len(key) < 4 or f"{typo}:" in GOOD:
                continue
            tried += 1
            right += any(
                f"did you mean '{key}'" in p for p in problems(GOOD.replace(f"{key}:", f"{typo}:", 1), tmp_path)
            )
    assert tried > 60
    assert right / tried >= 0.95
