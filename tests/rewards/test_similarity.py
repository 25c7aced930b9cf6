import pytest
import torch
from skimage.metrics import structural_similarity

from rewards.similarity import correlation, ssim


@pytest.mark.parametrize("size", [(40, 33), (7, 7), (16, 64)])
def test_ssim_agrees_with_scikit_image(size):
    image, target = torch.rand(4, 3, *size), torch.rand(4, 3, *size)
    image = 0.6 * image + 0.4 * target
    theirs = [
        structural_similarity(x.numpy(), y.numpy(), channel_axis=0, data_range=1.0, win_size=7)
        for x, y in zip(image, target, strict=True)
    ]
    torch.testing.assert_close(ssim(image, target), torch.tensor(theirs, dtype=torch.float32), atol=2e-5, rtol=0)


def test_ssim_is_one_for_equal_images_and_less_for_others():
    image = torch.rand(3, 3, 16, 16)
    torch.testing.assert_close(ssim(image, image), torch.ones(3))
    assert (ssim(image, image.flip(3)) < 0.9).all()


def test_ssim_refuses_what_it_cannot_compare():
    with pytest.raises(ValueError, match="one shape"):
        ssim(torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 15))
    with pytest.raises(ValueError, match="smaller than the window of 7"):
        ssim(torch.rand(1, 3, 6, 16), torch.rand(1, 3, 6, 16))


def test_correlation_ignores_brightness_and_contrast():
    image = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(correlation(0.3 * image + 0.5, image), torch.ones(2))
    torch.testing.assert_close(correlation(1 - image, image), -torch.ones(2))


def test_correlation_of_plain_images():
    plain = torch.full((1, 3, 8, 8), 0.5)
    assert correlation(plain, plain).item() == 1
    assert correlation(plain, torch.rand(1, 3, 8, 8)).item() == 0
