"""How large /dev/shm is for those inside, which is what counts, whatever the engine's records say."""

from __future__ import annotations

from keepfed.engine.container import Container
from keepfed.errors import UnreachableError

_SHM = "/dev/shm"  # noqa: S108  # the mount itself is meant


def shm_inside(container: Container) -> int | None:
    """The size of /dev/shm as `df` inside sees it, else as the mount table there says; None where neither can be read."""
    for argv, read in ((("df", "-k", _SHM), _from_df), (("cat", "/proc/mounts"), _from_mounts)):
        try:
            ran = container.run(argv)
        except UnreachableError:
            continue
        size = read(ran.stdout.decode(errors="replace")) if ran.exit_code == 0 else None
        if size is not None:
            return size
    return None


def _from_df(text: str) -> int | None:
    """The second column, in KiB, of the line that ends in /dev/shm; POSIX's df may break a line behind a long name."""
    words = text.split()
    if not words or words[-1] != _SHM or len(words) < 6:
        return None
    return int(words[-5]) * 1024 if words[-5].isdigit() else None


def _from_mounts(text: str) -> int | None:
    for line in text.splitlines():
        parts = line.split()
        if len(parts) > 3 and parts[1] == _SHM:
            size = next((word[5:] for word in parts[3].split(",") if word.startswith("size=")), "")
            if size.removesuffix("k").isdigit():
                return int(size.removesuffix("k")) * (1024 if size.endswith("k") else 1)
    return None
