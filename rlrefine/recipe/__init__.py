"""Recipes: what a run consists of, as data. Nothing here imports torch."""
