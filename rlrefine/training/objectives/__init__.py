"""Objectives, one small file each: what a step needs, and which losses it makes. None has a loop of its own."""
