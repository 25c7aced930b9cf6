"""Compare recipes that differ in one thing: several arms, several seeds, the same rows and noise, one table."""
