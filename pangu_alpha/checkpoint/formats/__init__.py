"""Published weights: their names, files and how they come in."""
