"""Look at rewards before anything is trained by them: what they say of images that are there."""
