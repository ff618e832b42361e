"""A dataset without a program: the search with an emulated step, in this process or in one of its own.

    keepfed.tune(dataset, step_s=…)      search.py ─────────────┐
    keepfed tune module:name             program.py, a program of our own below the launcher ─┤ loop.py, over what spec.py made
    finalists, changes that are offered  finals.py, offers.py ── pairs of fresh processes: trial.py, pairs.py

What stands here runs where torch is (search, spec, program, and trial in its child); the rest needs none, so that the
command line can refuse and compare without it.
"""
