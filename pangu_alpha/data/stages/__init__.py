"""Stages of the data factory: what is done to one record batch, as a function of that batch and of settings.

`clean` → `duplicates` → `select` → `tokens` → `pack`.  None of them knows an engine.
"""
