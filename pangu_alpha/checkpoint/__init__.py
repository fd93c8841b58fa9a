"""Checkpoints: a directory a step, written whole or not at all, read back checked."""
