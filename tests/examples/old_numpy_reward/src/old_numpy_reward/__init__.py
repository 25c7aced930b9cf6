"""A reward whose packages are older than ours can be."""
