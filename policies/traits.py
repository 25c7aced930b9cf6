"""What a recipe must know of each dynamics. No torch here: a recipe is checked before torch is imported."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What kind of step a dynamics takes.

    Args:
        stochastic: it draws noise, without which a policy gradient has nothing to learn from.
        keeps_marginals: in small steps every noise level has the distribution of the deterministic rollout, whatever
            the noise factor.
        largest_noise: of the noise factor, where it is a share of something; none where any factor will do.
        quiet_end: the step to σ = 0 draws no noise, and so has no density.
    """

    stochastic: bool = True
    keeps_marginals: bool = True
    largest_noise: float | None = None
    quiet_end: bool = False


TRAITS: dict[str, Traits] = {
    "ode": Traits(stochastic=False, quiet_end=True),
    "flow_sde": Traits(),
    "dance_sde": Traits(),
    "cps": Traits(keeps_marginals=False, largest_noise=1.0, quiet_end=True),
    "ddim": Traits(largest_noise=1.0, quiet_end=True),
    "euler_ancestral": Traits(largest_noise=1.0, quiet_end=True),
}
