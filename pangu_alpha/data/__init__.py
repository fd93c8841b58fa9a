"""From raw text to what the model is fed."""
