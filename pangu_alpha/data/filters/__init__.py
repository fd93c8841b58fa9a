"""Filters, one a file: they drop whole documents for what they say or how they repeat themselves."""
