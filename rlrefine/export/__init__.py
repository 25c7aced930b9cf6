"""Write a finished stage in the formats of other tools, and prove that they read it."""
