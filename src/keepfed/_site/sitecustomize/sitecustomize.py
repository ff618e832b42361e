"""Found through PYTHONPATH by every Python below `keepfed run`; matters to those in which keepfed is not installed.

Must parse in Python 2.7 and 3.6, stay silent below keepfed's floor, and run the sitecustomize that it hides.
"""  # noqa: I002  # `from __future__ import annotations` does not parse before 3.7

import os
import sys


def _leave_path():
    """Take our folder out of sys.path. It stays in PYTHONPATH: Python processes started by this one look for it there."""
    ours = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if not entry or os.path.abspath(entry) != ours]


def _chain():
    """Run the sitecustomize further down the path under its own name; its errors are reported by site, as without us."""
    ours = sys.modules.pop("sitecustomize", None)
    globals()["_ours"] = ours  # Python 2 empties a module that nothing refers to, while its code still runs
    try:
        import sitecustomize  # noqa: F401  # imported for what it does
    except ImportError as error:
        sys.modules.setdefault("sitecustomize", ours)
        missing = getattr(error, "name", None) or str(error).rpartition(" ")[2]
        if missing != "sitecustomize":
            raise
    except BaseException:
        sys.modules.setdefault("sitecustomize", ours)
        raise


def _arm():
    """Wait for torch where keepfed can be imported; else leave a line in the run folder. Never raises, never prints."""
    try:
        environ = os.environ
        if environ.get("KEEPFED_WORKER") or environ.get("KEEPFED_DISABLE", "0") not in ("", "0"):
            return
        run = environ.get("KEEPFED_RUN")
        if not run:
            return
        if sys.version_info < (3, 11):
            _report(run)
            return
        try:
            from keepfed._site import hook
        except Exception:
            _report(run)
        else:
            hook.arm()
    except Exception:
        pass


def _report(run):
    """One line in unarmed.jsonl: this interpreter cannot import keepfed."""
    import json

    file = os.path.join(run, "unarmed.jsonl")
    if os.path.exists(file) and os.path.getsize(file) > 1 << 18:  # a shell loop that starts Python for ever
        return
    line = {
        "pid": os.getpid(),
        "executable": sys.executable or "",
        "version": "%d.%d.%d" % sys.version_info[:3],
        "torch": any(os.path.isdir(os.path.join(entry, "torch", "utils")) for entry in sys.path if entry),
    }
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    try:
        os.write(descriptor, (json.dumps(line) + "\n").encode("ascii"))
    finally:
        os.close(descriptor)


_leave_path()
try:
    _chain()
finally:
    _arm()
