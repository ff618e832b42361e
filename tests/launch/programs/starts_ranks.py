"""Like torchrun: an agent that iterates nothing and starts one process per rank, each in a session of its own."""

import os
import subprocess
import sys

ranks = [
    subprocess.Popen(
        [sys.executable, "trains.py"],
        env={**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        start_new_session=True,
        stdout=subprocess.PIPE,
    )
    for rank in range(2)
]
for rank in ranks:
    sys.stdout.write(rank.communicate()[0].decode())
sys.exit(max(rank.returncode for rank in ranks))
