"""Studies that compare methods, each a file of data for ``rlrefine ablate``, and what they need to run."""
