"""Cleaning rules, one a file: they change documents, or drop those that are no running Chinese text (paper §3.1)."""
