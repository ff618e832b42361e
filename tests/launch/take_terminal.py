"""Makes the terminal on stdin the controlling one of a new session, as a terminal window does, and becomes the command."""

from __future__ import annotations

import fcntl
import os
import sys
import termios

fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
