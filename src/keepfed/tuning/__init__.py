"""Tuning seen from the launcher: follow a program until its loaders have settled, and keep what was learned.

The choosing itself happens inside the program, between two batches. This side reads what it reports, decides when enough
is known, and turns the reports into results.
"""
