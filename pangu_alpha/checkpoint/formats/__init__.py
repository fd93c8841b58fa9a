"""Weights as others keep them: one file a form, each read without being held in memory, and the forms written here."""
