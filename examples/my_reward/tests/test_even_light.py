from my_reward import EvenLight

from rewards.testing import check_reward


def test_it_keeps_the_contract():
    check_reward(EvenLight(columns=4))
