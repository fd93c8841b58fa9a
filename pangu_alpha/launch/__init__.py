"""From one command to all processes of a run: who starts where, with which environment, and what a failure does."""
