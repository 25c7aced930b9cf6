"""Show a run: a table in the terminal and one page that needs no network."""
