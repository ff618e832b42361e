"""`python -m keepfed`: the same as the `keepfed` command, for an interpreter whose scripts are not on PATH."""

from __future__ import annotations

import sys

from keepfed.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
