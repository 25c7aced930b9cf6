"""Algorithms as pure functions on tensors: no model, no trainer, no recipe; torch is all they import."""
