"""The training loop: its step, optimizer and schedule, and what watches it."""
