"""Makes a folder of JPEG photographs to train on, without a download.

scikit-image ships some real photographs inside its package (their sources and terms, mostly CC0 or public domain, are in
the documentation of `skimage.data`). Every file made here is a random crop of one of them at a random scale, as large as a
photo from the web, so that decoding costs what decoding costs. The label is the photograph: one sub-folder per label.

    python make_photos.py                        # 3000 files in data/ beside this script, under a minute on two cores
    python make_photos.py --count 40 --out /tmp/photos

Photo number i depends on the seed and on i only. A folder that is complete is left alone, one whose making was
interrupted is completed: no file ever has its final name before it is whole.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

# The photographs in the package; drawings, scanned text and masks are left out, and so is the right eye of the stereo
# pair (the left one again), and whatever skimage.data would first have to download.
PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
SIDES_PX = (500, 800)
JPEG_QUALITY = 90
STALE_S = 60.0
"""A temporary file lives for milliseconds; one this old was left by a killed run."""


def main(argv: list[str] | None = None) -> int:
    """Make the folder, say what was done; 2 if it cannot be made as asked."""
    args = parse_args(argv)
    started_s = time.perf_counter()
    try:
        sources = load_photographs()
        settle_recipe(args.out, count=args.count, seed=args.seed)
        made = make_missing(args.out, sources, count=args.count, seed=args.seed)
    except (OSError, ValueError) as error:
        print(f"make_photos: {error}", file=sys.stderr)
        return 2
    if made:
        print(f"{args.out}: made {made} of {args.count} photos in {time.perf_counter() - started_s:.0f} s")
    else:
        print(f"{args.out}: all {args.count} photos are there")
    return 0


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make a folder of JPEG photographs to train on.")
    parser.add_argument("--count", type=int, default=3000, help="number of files (default 3000)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed makes the same files (default 0)")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "data", help="folder to fill")
    args = parser.parse_args(argv)
    if args.count < 1:
        parser.error(f"--count {args.count}: at least 1 photo is needed")
    return args


def load_photographs() -> dict[str, Image.Image]:
    """Label -> photograph, decoded, for those that this installation of scikit-image has on disk."""
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise ValueError("scikit-image is not installed: pip install scikit-image")
    folder = Path(spec.origin).parent / "data"
    paths = [folder / name for name in PHOTOGRAPHS if (folder / name).is_file()]
    if len(paths) < 2:
        raise ValueError(
            f"{folder} holds {len(paths)} of its photographs, at least 2 are needed: reinstall scikit-image"
        )
    photographs = {}
    for path in paths:
        with Image.open(path) as image:
            photographs[path.stem] = image.convert("RGB")
    return photographs


def settle_recipe(out: Path, *, count: int, seed: int) -> None:
    """Note seed and count in the folder before its first photo; refuse a folder of another seed or with more photos."""
    recipe_file = out / "recipe.json"
    if recipe_file.exists():
        try:
            recipe = json.loads(recipe_file.read_text(encoding="utf-8"))
            made_seed, made_count = int(recipe["seed"]), int(recipe["count"])
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{recipe_file} is not readable: remove {out} and make it again") from None
        if made_seed != seed or made_count > count:
            raise ValueError(
                f"{out} was made with --seed {made_seed} --count {made_count}, not --seed {seed} --count {count}: "
                "choose another --out or remove it"
            )
    out.mkdir(parents=True, exist_ok=True)
    write_whole(recipe_file, json.dumps({"seed": seed, "count": count}).encode())


def make_missing(out: Path, sources: dict[str, Image.Image], *, count: int, seed: int) -> int:
    """Make every photo that has no file yet; the number made. Pillow works outside the interpreter lock: threads do."""
    labels = sorted(sources)
    for label in labels:
        (out / label).mkdir(exist_ok=True)
    remove_stale(out)
    targets = [(number, out / labels[number % len(labels)] / f"{number:05d}.jpg") for number in range(count)]
    missing = [(number, path) for number, path in targets if not path.exists()]

    def make(job: tuple[int, Path]) -> None:
        number, path = job
        write_whole(path, photo(sources[path.parent.name], random.Random(f"{seed}/{number}")))

    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for _ in pool.map(make, missing):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    return len(missing)


def photo(source: Image.Image, draw: random.Random) -> bytes:
    """One crop of `source`, between a quarter and all of its width and height, scaled to the size of a photo."""
    width, height = (draw.randint(*SIDES_PX) for _ in range(2))
    portion = draw.uniform(0.25, 1.0)
    scale = portion * min(source.width / width, source.height / height)
    left = draw.uniform(0, source.width - width * scale)
    top = draw.uniform(0, source.height - height * scale)
    box = (left, top, min(left + width * scale, source.width), min(top + height * scale, source.height))
    crop = source.resize((width, height), Image.Resampling.BICUBIC, box=box)
    buffer = io.BytesIO()
    crop.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def write_whole(path: Path, content: bytes) -> None:
    """The file appears under its name with all of `content`, or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_stale(out: Path) -> None:
    """Remove what a run that was killed in mid-write left; another run's fresh files are not touched."""
    for path in out.glob("**/*.tmp"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > STALE_S:
                path.unlink()


if __name__ == "__main__":
    sys.exit(main())
