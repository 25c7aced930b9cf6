"""Studies that compare methods, each a file of data for ``python -m rlrefine.ablation``, and what they need to run."""
