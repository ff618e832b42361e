"""Train a small CNN to tell from which photograph a crop was taken: `make_photos.py` first, then `train.py`.

On a CUDA device the model trains there; without one it trains on the CPU, or, with `--gpu-step-ms 110`, every training
step only waits as long as a GPU would take, which leaves the CPU to the data loader as a GPU does.
"""

import argparse
import random
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import nn
from torch.utils.data import DataLoader, Dataset

MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)


class PhotoFolder(Dataset):
    """JPEG files in one sub-folder per class, decoded and augmented on access."""

    def __init__(self, root, size):
        self.classes = sorted(folder.name for folder in Path(root).iterdir() if folder.is_dir())
        self.samples = [
            (path, label) for label, name in enumerate(self.classes) for path in sorted(Path(root, name).glob("*.jpg"))
        ]
        self.size = size

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        path, label = self.samples[index]
        with Image.open(path) as file:
            image = random_resized_crop(file.convert("RGB"), self.size)
        if random.random() < 0.5:
            image = ImageOps.mirror(image)
        image = colour_jitter(image, 0.3)
        pixels = (np.asarray(image, dtype=np.float32) / 255 - MEAN) / STD
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), label


def random_resized_crop(image, size):
    """A crop of 30 to 100 % of the area with an aspect ratio of 3:4 to 4:3, scaled to size x size."""
    area = image.width * image.height * random.uniform(0.3, 1.0)
    ratio = random.uniform(3 / 4, 4 / 3)
    width = min(image.width, round((area * ratio) ** 0.5))
    height = min(image.height, round((area / ratio) ** 0.5))
    left = random.randint(0, image.width - width)
    top = random.randint(0, image.height - height)
    box = (left, top, left + width, top + height)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)


def colour_jitter(image, strength):
    """Brightness, contrast and colour, each scaled by up to `strength`, in random order."""
    enhancers = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]
    random.shuffle(enhancers)
    for enhancer in enhancers:
        image = enhancer(image).enhance(random.uniform(1 - strength, 1 + strength))
    return image


class SmallCNN(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        layers, channels = [], 3
        for width in (16, 32, 64, 128):
            layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(channels, num_classes)

    def forward(self, images):
        return self.head(self.features(images))


class Trainer:
    """The training step on a real device."""

    def __init__(self, num_classes, lr, device):
        self.device = device
        self.model = SmallCNN(num_classes).to(device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=lr, momentum=0.9)
        self.criterion = nn.CrossEntropyLoss()

    def step(self, images, labels):
        images = images.to(self.device, non_blocking=True)
        labels = labels.to(self.device, non_blocking=True)
        loss = self.criterion(self.model(images), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()


class EmulatedGPU:
    """A GPU's step as the CPU sees it: nothing to compute, so many milliseconds to wait. Nothing is learnt."""

    def __init__(self, step_ms):
        self.step_ms = step_ms

    def step(self, *_batch):
        time.sleep(self.step_ms / 1000)


def train_epoch(epoch, loader, trainer, log_every):
    start = window_start = time.perf_counter()
    seen = window_seen = 0
    for step, (images, labels) in enumerate(loader, 1):
        loss = trainer.step(images, labels)
        seen += len(labels)
        window_seen += len(labels)
        if step % log_every == 0:
            shown = "" if loss is None else f"loss {loss.item():.3f}  "
            now = time.perf_counter()
            print(
                f"epoch {epoch} step {step}/{len(loader)}  {shown}{window_seen / (now - window_start):.1f} img/s",
                flush=True,
            )
            window_start, window_seen = now, 0
    seconds = time.perf_counter() - start
    print(f"epoch {epoch} done: {seen} images in {seconds:.1f} s, {seen / seconds:.1f} img/s on average", flush=True)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parent / "data")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--num-workers", type=int, default=0)
    parser.add_argument("--prefetch-factor", type=int, default=None, help="batches loaded ahead by each worker")
    parser.add_argument("--size", type=int, default=224, help="height and width the model sees")
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--log-every", type=int, default=20, help="steps between two lines of progress")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--gpu-step-ms", type=float, default=None, help="without a GPU: wait so long per step instead of computing"
    )
    return parser.parse_args()


def main():
    args = parse_args()
    random.seed(args.seed)
    torch.manual_seed(args.seed)
    if not args.data.is_dir():
        raise SystemExit(f"{args.data} is not there: run make_photos.py first")

    dataset = PhotoFolder(args.data, args.size)
    loader = DataLoader(
        dataset,
        batch_size=args.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=args.num_workers,
        prefetch_factor=args.prefetch_factor,
        pin_memory=torch.cuda.is_available(),
    )

    if torch.cuda.is_available():
        print(f"training on {torch.cuda.get_device_name()}")
        trainer = Trainer(len(dataset.classes), args.lr, torch.device("cuda"))
    elif args.gpu_step_ms is not None:
        print(f"NO GPU HERE: its step is emulated by waiting {args.gpu_step_ms:g} ms per batch, nothing is trained")
        trainer = EmulatedGPU(args.gpu_step_ms)
    else:
        print("no GPU here: training on the CPU")
        trainer = Trainer(len(dataset.classes), args.lr, torch.device("cpu"))

    print(
        f"{len(dataset)} photos of {len(dataset.classes)} classes, {len(loader)} batches of {args.batch_size}",
        flush=True,
    )
    for epoch in range(1, args.epochs + 1):
        train_epoch(epoch, loader, trainer, args.log_every)


if __name__ == "__main__":
    main()
