"""Puts two stubs into torch's DataLoader as soon as a program below `keepfed run` imports torch.

Runs in every Python process that the program starts (resource trackers, pip, compile workers), so arming must cost next to
nothing: one finder in front of `sys.meta_path`, no file, no output, no import. `import torch` itself imports
`torch.utils.data.dataloader` while torch is half made (no torch.multiprocessing, no torch.compile), so nothing that needs
torch can be imported from here either: the stubs wait for the first `iter(loader)` and only then import `keepfed.loader`.

Whatever goes wrong here must leave the program as if keepfed were not there, with one line on stderr at most.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, ModuleType
    from typing import Any

SEAM = "torch.utils.data.dataloader"
FRAMEWORKS = frozenset(
    {"torch", "lightning", "lightning_fabric", "pytorch_lightning", "accelerate", "transformers", "keepfed"}
)
"""Packages that build loaders on behalf of the program: a construction site never lies in them."""


_armed: list[bool] = []


def arm() -> None:
    """Wait for torch in this process. Does nothing the second time, in a loader worker, or without KEEPFED_RUN. Never raises."""
    try:
        environ = os.environ
        if not environ.get("KEEPFED_RUN") or environ.get("KEEPFED_WORKER") or _disabled(environ):
            return
        if _armed:
            return
        _armed.append(True)
        if SEAM in sys.modules:  # somebody imported torch before site was through
            install_stubs(sys.modules[SEAM])
        else:
            sys.meta_path.insert(0, TorchWatch())
    except Exception as error:
        complain(error)


def _disabled(environ: Any) -> bool:
    return environ.get("KEEPFED_DISABLE", "0") not in {"", "0"}


class TorchWatch:
    """A meta-path finder that waits for one module, and is gone once that module is asked for."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> Any:
        """None for every other module; for torch's loader module the spec that the other finders give, with an epilogue."""
        if name != SEAM:
            return None
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        for finder in list(sys.meta_path):
            find = getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find is not None else None
            if spec is not None:
                _add_epilogue(spec.loader)
                return spec
        return None


def _add_epilogue(loader: Any) -> None:
    """Let `loader` install the stubs after it has executed the module.

    An attribute on this one loader object and not a wrapper around it: `inspect` and `linecache` keep finding the source.
    """
    try:
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            try:
                del loader.exec_module
            except Exception:
                pass
            execute(module)
            try:
                install_stubs(module)
            except Exception as error:
                complain(error)

        loader.exec_module = exec_module
    except Exception as error:
        complain(error)


def install_stubs(module: Any) -> None:
    """Swap the two stubs into `module.DataLoader`."""
    import functools  # torch has imported these long before
    import threading

    loader_class = module.DataLoader
    torch_init = loader_class.__init__
    torch_get_iterator = loader_class._get_iterator
    folder_at_start = _current_folder()
    lock = threading.RLock()

    @functools.wraps(torch_init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807  # it is one
        torch_init(self, *args, **kwargs)
        try:
            # Around DataLoader.__setattr__ and whatever a subclass put in its place.
            object.__setattr__(self, "_keepfed_site", construction_site(self, sys._getframe(1), folder_at_start))
        except Exception:
            pass

    @functools.wraps(torch_get_iterator)
    def _get_iterator(self: Any) -> Any:
        if _in_loader_worker():
            return torch_get_iterator(self)
        with lock:
            if loader_class._get_iterator is _get_iterator:
                try:
                    from keepfed.loader.armed import arm as arm_loader

                    arm_loader()
                except Exception as error:
                    put_back()
                    complain(error)
                if loader_class._get_iterator is _get_iterator:  # arm() chose to leave torch alone
                    loader_class._get_iterator = torch_get_iterator
        # Not self._get_iterator(): a subclass that came here through super() would wrap its own result twice.
        current = loader_class._get_iterator
        return torch_get_iterator(self) if current is _get_iterator else current(self)

    def put_back() -> None:
        if loader_class.__init__ is __init__:
            loader_class.__init__ = torch_init
        current = loader_class._get_iterator
        if current is _get_iterator or getattr(current, "__module__", "").partition(".")[0] == "keepfed":
            loader_class._get_iterator = torch_get_iterator

    loader_class.__init__ = __init__
    loader_class._get_iterator = _get_iterator


def _in_loader_worker() -> bool:
    """Whether this process is a worker of some DataLoader, torch's own included: its loaders are nobody's business."""
    if os.environ.get("KEEPFED_WORKER"):
        return True
    worker = sys.modules.get("torch.utils.data._utils.worker")
    return getattr(worker, "_worker_info", None) is not None


def construction_site(loader: Any, frame: FrameType | None, folder_at_start: str) -> str:
    """The first frame outside torch, the frameworks and keepfed, and outside the loader's own `__init__`, as "file:line".

    The path is relative to the folder in which `keepfed run` was started where it lies below it, with forward slashes.
    """
    while frame is not None and (_of_framework(frame) or _is_init_of(loader, frame)):
        frame = frame.f_back
    if frame is None:
        return ""
    return f"{_readable(frame.f_code.co_filename, folder_at_start)}:{frame.f_lineno}"


def _of_framework(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__") or ""
    if name == "__main__":  # python -m torch.distributed.run is torch all the same
        name = getattr(frame.f_globals.get("__spec__"), "name", "") or name
    return name.partition(".")[0] in FRAMEWORKS


def _is_init_of(loader: Any, frame: FrameType) -> bool:
    """Whether `frame` is the `__init__` of a subclass, on its way to torch's."""
    code = frame.f_code
    return code.co_name == "__init__" and code.co_argcount > 0 and frame.f_locals.get(code.co_varnames[0]) is loader


def _readable(file: str, folder_at_start: str) -> str:
    if file.startswith("<"):  # <stdin>, <string>, <ipython-input-…>
        return file
    file = os.path.normpath(os.path.join(folder_at_start, file))
    start = _start_folder(folder_at_start)
    if start:
        for path in (file, os.path.realpath(file)):
            if path.startswith(start.rstrip(os.sep) + os.sep):
                file = path[len(start.rstrip(os.sep)) + 1 :]
                break
    return file.replace(os.sep, "/")


_start: list[str] = []


def _start_folder(otherwise: str) -> str:
    """The folder in which `keepfed run` was started, as the run folder tells; else where this process started."""
    if not _start:
        folder = ""
        try:
            import json

            with open(os.path.join(os.environ["KEEPFED_RUN"], "config.json"), encoding="utf-8") as file:
                folder = json.load(file).get("start_folder", "")
        except Exception:
            pass
        _start.append(folder or otherwise)
    return _start[0]


def _record(error: str) -> None:
    """Leave a line for the launcher, which would otherwise say that no loader was iterated."""
    try:
        import json

        version = ".".join(map(str, sys.version_info[:3]))
        line = {"pid": os.getpid(), "executable": sys.executable, "version": version, "torch": True, "error": error}
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(os.path.join(os.environ["KEEPFED_RUN"], "unarmed.jsonl"), flags, 0o600)
        try:
            os.write(descriptor, (json.dumps(line) + "\n").encode())
        finally:
            os.close(descriptor)
    except Exception:
        pass


def _current_folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return ""


def complain(error: BaseException) -> None:
    """One line, on stderr and in the run folder: keepfed does not act in this process. Never raises."""
    try:
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        _record(what)
        try:
            from keepfed.text import say

            line = say("run.not_armed", error=what)
        except Exception:
            line = f"keepfed: not active in this process, torch's own DataLoader is used ({what})"
        sys.stderr.write(line + "\n")
    except Exception:
        pass
