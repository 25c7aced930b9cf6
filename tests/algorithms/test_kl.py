import torch

from rlrefine.algorithms.kl import kl_v, kl_x


def test_kl_x_is_the_gaussian_divergence_per_dimension():
    mean, other, std = torch.randn(3, 5, 2, dtype=torch.float64), torch.randn(3, 5, 2, dtype=torch.float64), 0.3
    exact = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, std), torch.distributions.Normal(other, std)
    )
    torch.testing.assert_close(kl_x(mean, other, std), exact.flatten(1).mean(dim=1))


def test_both_forms_have_a_gradient_towards_the_other_policy():
    for divergence in (lambda a, b: kl_x(a, b, 0.5), kl_v):
        mean = torch.zeros(2, 4, requires_grad=True)
        divergence(mean, torch.ones(2, 4)).sum().backward()
        assert (mean.grad < 0).all()


def test_zero_and_without_gradient_at_equality():
    mean = torch.randn(2, 4, requires_grad=True)
    loss = kl_x(mean, mean.detach(), 0.5).sum() + kl_v(mean, mean.detach()).sum()
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(mean.grad, torch.zeros(2, 4))
