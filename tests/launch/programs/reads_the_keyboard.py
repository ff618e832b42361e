"""Asks, as a debugger would; says whose group is in the foreground of the terminal."""

import os

print("foreground:", os.tcgetpgrp(0) == os.getpgrp(), flush=True)
print("answer:", input("question? "), flush=True)
