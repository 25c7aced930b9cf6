"""What is wrong with this machine and what is installed on it. No torch here: it is asked in a process of its own."""
