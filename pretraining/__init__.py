"""How the embedded models were made: plain scripts that run once, outside the installed packages."""
