"""What others call the parameters: one table a variant."""
