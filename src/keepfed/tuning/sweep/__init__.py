"""`keepfed tune --sweep`: a command once per value, measured from outside, never entered.

For programs that keepfed cannot enter: another Python, another framework, another language. What can be known about those
is what a person at the terminal would see, and what the kernel counts:

     values ──→ command with {} replaced ──→ one run ──┬── output (pty) ──→ screen ──→ progress ──→ rate
                                                       └── process tree ──→ usage (memory, CPU, GPU)
                        rounds (again with --repeat, every other one backwards)  ──→ choice ──→ table, JSON, history
"""
