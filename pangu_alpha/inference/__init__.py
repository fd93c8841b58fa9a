"""A trained model at work: text continued, masks filled, probabilities read."""
