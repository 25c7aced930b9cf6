"""Measure results: the same rows and the same noise for every arm, and intervals that say how sure a difference is."""
