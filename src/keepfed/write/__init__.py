"""Carries edits out: the file is replaced whole or not at all, every change is noted before it is made, and can be taken back."""
