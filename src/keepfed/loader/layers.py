"""What a dataset does inside one sample: decoding, its transform, the rest. For the child that times samples, and only there.

    dataset[i] ──────────────────────────────────────────────┐
       open, read │ decode: PIL's load, cv2.imdecode, …      │ each layer's own time: what lies inside another one
                  │ transform: dataset.transform(s)          │ counts there alone (PIL decodes lazily, often in the transform)
                  │      └ resize ─▶ how much smaller it ends│
    ──────────────────────────────────────────────────────────┘

A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size for a fraction of the work (`Image.draft`: libjpeg scales in the DCT). It is
worth trying only if the image is made smaller afterwards anyway; so the first resize after each decoding is watched, and the
same sample is timed again with as much draft as leaves at least the pixels that the resize asked for.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

DECODERS = (
    ("cv2", "imdecode"),
    ("cv2", "imread"),
    ("imageio.v3", "imread"),
    ("librosa", "load"),
    ("simplejpeg", "decode_jpeg"),
    ("skimage.io", "imread"),
    ("soundfile", "read"),
    ("torchaudio", "load"),
    ("torchvision.io", "decode_image"),
    ("torchvision.io", "decode_jpeg"),
    ("torchvision.io", "read_image"),
)
"""Functions that decode, by module; found where a program calls them through their module."""
SCALES = (8, 4, 2)
"""Parts of its size at which libjpeg can decode an image, as `JpegImageFile.draft` uses them."""
_DEEPEST = 5


class Layers:
    """Own seconds of each layer, of everything that was called since `begin`."""

    def __init__(self) -> None:
        self.decode_s = self.transform_s = 0.0
        self.decoded = self.transformed = 0
        """Calls since the beginning, in which something was spent."""
        self.decoder = ""
        """What decoded last: "PIL" or a function's name."""
        self.drafts = 0
        """How often decoding was made smaller."""
        self._open: list[float] = []
        self._thread = threading.get_ident()
        self._scale = 1  # at which JPEGs are decoded now
        self._resized: list[float] = []  # how many times smaller the first resize after each decoding made it
        self._fresh = False  # whether an image was decoded and not resized yet

    def begin(self, scale: int = 1) -> None:
        """Another sample comes; its JPEGs are decoded at this part of their size."""
        self.decode_s = self.transform_s = 0.0
        self._open.clear()
        self._scale, self._resized, self._fresh = scale, [], False

    def allowed_scale(self) -> int:
        """How many times smaller this sample's JPEGs might have been decoded, given what they were resized to; 1 for not."""
        least = min(self._resized, default=1.0)
        return next((scale for scale in SCALES if scale <= least), 1)

    # ---- finding what to time ---------------------------------------------------------------------------------------

    def wrap_dataset(self, dataset: Any) -> None:
        """Time the transform of this dataset, or of the one inside a Subset and its like."""
        for _ in range(_DEEPEST):
            found = [name for name in ("transform", "transforms") if callable(getattr(dataset, name, None))]
            for name in found:
                with contextlib.suppress(Exception):  # a property, slots: it cannot be told apart then
                    setattr(dataset, name, _Transform(getattr(dataset, name), self))
            dataset = getattr(dataset, "dataset", None)
            if dataset is None:
                return

    def wrap_decoders(self) -> None:
        """Time whatever decodes that this process has imported by now."""
        for module_name, name in DECODERS:
            module = sys.modules.get(module_name)
            if callable(function := getattr(module, name, None)):
                setattr(module, name, self._timed_decoder(function, f"{module_name}.{name}"))
        if "PIL.ImageFile" in sys.modules:
            self._wrap_pil()

    def _timed_decoder(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def decode(*arguments: Any, **options: Any) -> Any:
            return self.timed("decode", name, function, *arguments, **options)

        return decode

    def _wrap_pil(self) -> None:
        from PIL import Image, ImageFile

        kinds: list[Any] = [ImageFile.ImageFile, *_below(ImageFile.ImageFile)]
        for kind in kinds:
            if "load" in vars(kind):
                kind.load = self._load(kind.load)
        Image.Image.resize = self._resize(Image.Image.resize)  # type: ignore[method-assign]  # what this file is for

    def _load(self, load: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(load)
        def decode(image: Any, *arguments: Any, **options: Any) -> Any:
            if not getattr(image, "tile", None):  # it is decoded already: programs ask often
                return load(image, *arguments, **options)
            if image.format == "JPEG" and self._scale > 1:
                before = image.size
                image.draft(None, (max(1, before[0] // self._scale), max(1, before[1] // self._scale)))
                self.drafts += image.size != before
            self._fresh = True
            return self.timed("decode", "PIL", load, image, *arguments, **options)

        return decode

    def _resize(self, resize: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(resize)
        def watched(
            image: Any, size: Any, resample: Any = None, box: Any = None, *arguments: Any, **options: Any
        ) -> Any:
            if self._fresh and self._own():
                self._fresh = False
                left, top, right, bottom = box or (0, 0, *image.size)
                self._resized.append(min((right - left) / max(1, size[0]), (bottom - top) / max(1, size[1])))
            return resize(image, size, resample, box, *arguments, **options)

        return watched

    # ---- timing -----------------------------------------------------------------------------------------------------

    def timed(self, layer: str, name: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """What `function` returns; what it takes counts for this layer, less what an inner layer takes."""
        if not self._own():
            return function(*arguments, **options)
        began_s = time.perf_counter()
        self._open.append(0.0)
        try:
            return function(*arguments, **options)
        finally:
            took_s = time.perf_counter() - began_s
            own_s = took_s - (self._open.pop() if self._open else 0.0)
            if self._open:
                self._open[-1] += took_s
            if layer == "decode":
                self.decode_s, self.decoded, self.decoder = self.decode_s + own_s, self.decoded + 1, name
            else:
                self.transform_s, self.transformed = self.transform_s + own_s, self.transformed + 1

    def _own(self) -> bool:
        return threading.get_ident() == self._thread


class _Transform:
    """A dataset's transform, timed; everything else about it is its own."""

    def __init__(self, inner: Any, layers: Layers) -> None:
        self._inner, self._layers = inner, layers

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._layers.timed("transform", "", self._inner, *arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _below(kind: type) -> list[type]:
    found: list[type] = []
    each: type
    for each in kind.__subclasses__():
        found += [each, *_below(each)]
    return found
