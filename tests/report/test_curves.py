import numpy as np

from rlrefine.report.curves import stage_curves, thinned


def test_curves_are_drawn_for_what_was_logged_and_are_the_same_each_time():
    records = [{"step": step, "loss": 0.5**step, "kl": 0.0} for step in range(5)]
    curves = stage_curves({"run": records})
    assert list(curves) == ["loss"]  # what never changes is no curve
    assert curves["loss"].lstrip().startswith("<?xml")
    assert curves == stage_curves({"run": records})


def test_each_reward_has_its_own_figure_with_its_spread():
    def records(spread):
        means = {"reward/near": 1.0, "reward/far": 9.0}
        return [{"step": s, **{k: v + s for k, v in means.items()}, **spread} for s in range(5)]

    around = {"reward_spread/near": 0.5, "reward_spread/far": 0.5}
    plain, spread = (stage_curves({"run": records(each)}) for each in ({}, around))
    assert list(plain) == ["reward of the rollouts: far", "reward of the rollouts: near"]
    for title, svg in plain.items():
        assert "FillBetween" not in svg
        assert "FillBetween" in spread[title]


def test_several_runs_are_lines_of_one_figure():
    runs = {name: [{"step": s, "loss": 1.0 / (s + k)} for s in range(3)] for k, name in ((1, "one"), (2, "two"))}
    (svg,) = stage_curves(runs).values()
    assert ">one<" in svg
    assert ">two<" in svg


def test_a_seventh_run_is_not_dropped():
    runs = {f"run-{k}": [{"step": s, "loss": float(s + k)} for s in range(3)] for k in range(7)}
    (svg,) = stage_curves(runs).values()
    assert ">run-6<" in svg


def test_a_dollar_in_a_name_is_no_formula():
    runs = {name: [{"step": s, "loss": float(s)} for s in range(3)] for name in ("$a^", "b")}
    (svg,) = stage_curves(runs).values()
    assert ">$a^<" in svg


def test_a_long_line_keeps_its_mean():
    values = np.random.default_rng(0).normal(size=9000)
    found = thinned(list(values))
    assert len(found) == 300
    assert found.mean() == np.float64(values.mean()).round(15) or abs(found.mean() - values.mean()) < 1e-12
