"""Every module imports on Windows and macOS, tried here with the names removed that those systems do not have.

The first pass imports everything as it is, so that torch and the standard library are loaded the way that suits this
machine; then keepfed is forgotten, the names go, and keepfed alone is imported again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.test_imports import modules

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# From the "Availability" notes of the standard library's documentation (os, signal, socket, select).
NOT_ON_MACOS = {
    "os": (
        "memfd_create pidfd_open sched_getaffinity sched_setaffinity eventfd eventfd_read eventfd_write splice "
        "copy_file_range getrandom posix_fallocate posix_fadvise pipe2 setresuid getresuid O_TMPFILE O_DIRECT MFD_CLOEXEC "
        "EFD_CLOEXEC P_PIDFD"
    ),
    "signal": "pidfd_send_signal sigtimedwait sigwaitinfo SIGPWR SIGSTKFLT SIGPOLL SIGRTMIN SIGRTMAX",
    "socket": "SOCK_CLOEXEC SOCK_NONBLOCK SO_PEERCRED SO_PASSCRED AF_NETLINK MSG_CMSG_CLOEXEC",
    "select": "epoll EPOLLIN",
    "mmap": "MAP_POPULATE MAP_STACK MAP_NORESERVE",
    "": "",
}
NOT_ON_WINDOWS = {
    "os": (
        f"{NOT_ON_MACOS['os']} fork forkpty register_at_fork killpg getpgid getpgrp setpgid setpgrp setsid getsid "
        "tcgetpgrp tcsetpgrp getuid geteuid getgid getegid getgroups setuid seteuid initgroups chown fchown lchown fchmod "
        "mkfifo mknod statvfs fstatvfs sysconf sysconf_names getloadavg nice getpriority wait wait3 wait4 waitid "
        "WNOHANG WNOWAIT WEXITED WUNTRACED P_PID P_ALL WIFEXITED WIFSIGNALED WTERMSIG WEXITSTATUS WCOREDUMP uname "
        "posix_spawn posix_spawnp pread pwrite preadv pwritev readv writev sendfile openpty ttyname lockf ctermid sync "
        "O_NOFOLLOW O_DIRECTORY O_CLOEXEC O_NONBLOCK O_SYNC O_DSYNC O_NOCTTY set_blocking get_blocking"
    ),
    "signal": (
        f"{NOT_ON_MACOS['signal']} SIGKILL SIGHUP SIGQUIT SIGSTOP SIGTSTP SIGCONT SIGCHLD SIGCLD SIGTTIN SIGTTOU SIGUSR1 "
        "SIGUSR2 SIGWINCH SIGPIPE SIGALRM SIGBUS SIGTRAP SIGXCPU SIGXFSZ SIGPROF SIGVTALRM SIGIO SIGURG SIGSYS alarm "
        "setitimer getitimer ITIMER_REAL pause pthread_kill pthread_sigmask sigpending sigwait siginterrupt SIG_BLOCK "
        "SIG_UNBLOCK SIG_SETMASK"
    ),
    "socket": f"{NOT_ON_MACOS['socket']} AF_UNIX SCM_RIGHTS CMSG_LEN CMSG_SPACE send_fds recv_fds",
    "select": f"{NOT_ON_MACOS['select']} poll POLLIN POLLOUT POLLHUP POLLERR",
    "mmap": f"{NOT_ON_MACOS['mmap']} MAP_SHARED MAP_PRIVATE MAP_ANONYMOUS MAP_ANON PROT_READ PROT_WRITE PROT_EXEC "
    "MADV_DONTNEED MADV_DONTFORK MADV_REMOVE MADV_HUGEPAGE",
    "": "fcntl resource grp pwd termios tty pty syslog",
}

PROBE = """
import importlib, json, sys, traceback

names, missing, platform = json.loads(sys.argv[1])

def fails():
    failed = []
    for name in names:
        try:
            importlib.import_module(name)
        except Exception:
            failed.append(name)
            traceback.print_exc()
    return failed

if fails():
    sys.exit("a module does not even import here")
for name in [name for name in sys.modules if name in names or name.startswith("keepfed")]:
    del sys.modules[name]
for owner, removed in missing.items():
    for name in removed.split():
        if owner:
            vars(importlib.import_module(owner)).pop(name, None)
        else:
            sys.modules[name] = None
sys.platform = platform
print(json.dumps(fails()))
sys.stdout.flush()
import os
os._exit(0)  # the interpreter's own way out may want what was removed
"""


@pytest.mark.parametrize(
    ("platform", "missing"), [("win32", NOT_ON_WINDOWS), ("darwin", NOT_ON_MACOS)], ids=["windows", "macos"]
)
def test_every_module_imports_without_the_names_that_the_system_lacks(platform: str, missing: dict[str, str]) -> None:
    assert _failing(modules(), platform, missing) == []


def test_the_probe_notices_a_posix_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the test above could not fail."""
    (tmp_path / "posix_only.py").write_text("import os\nFORK = os.fork\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    assert _failing(["posix_only"], "win32", NOT_ON_WINDOWS) == ["posix_only"]


def _failing(names: Sequence[str], platform: str, missing: dict[str, str]) -> list[str]:
    """The modules that do not import on `platform`."""
    request = json.dumps([names, missing, platform])
    done = subprocess.run([sys.executable, "-c", PROBE, request], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    failed: list[str] = json.loads(done.stdout)
    if failed:
        sys.stderr.write(done.stderr)
    return failed
