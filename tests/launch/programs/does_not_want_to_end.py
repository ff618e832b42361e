"""Ignores Ctrl-C and SIGTERM, and leaves children behind: one in its group, one in a session of its own."""

import signal
import subprocess
import sys

for name in ("SIGINT", "SIGTERM", "SIGHUP"):
    signal.signal(getattr(signal, name), signal.SIG_IGN)
wait = [sys.executable, "-c", "import signal\nwhile True: signal.pause()"]
children = [subprocess.Popen(wait), subprocess.Popen(wait, start_new_session=True)]
print("ready", *(child.pid for child in children), flush=True)
while True:
    signal.pause()
