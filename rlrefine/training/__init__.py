"""Training: stages of a run, each an explicit loop over rollout, reward, advantage and loss."""
