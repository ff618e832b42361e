"""Says that it is ready and waits for a signal."""

import signal

print("ready", flush=True)
while True:
    signal.pause()
