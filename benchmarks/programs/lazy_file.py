"""The dataset opens its file at the first access and keeps it open, in this process, for the code asks for no workers.

Workers forked after that would share the file's position and read each other's records. Every record holds its own
number; the last line says how many were not what had been asked for.
"""

import argparse
import struct
import tempfile
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

RECORD = struct.Struct("<q1016x")


class Records(Dataset):
    def __init__(self, path, length):
        self.path = path
        self.length = length
        self.file = None

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if self.file is None:
            self.file = open(self.path, "rb", buffering=0)
        time.sleep(0.005)
        self.file.seek(index * RECORD.size)
        (number,) = RECORD.unpack(self.file.read(RECORD.size))
        return torch.full((3, 32, 32), float(number)), number, index


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=500, help="steps per epoch")
    parser.add_argument("--num-workers", type=int, default=0)
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "records.bin")
        path.write_bytes(b"".join(RECORD.pack(number) for number in range(8 * args.steps)))
        dataset = Records(path, 8 * args.steps)
        loader = DataLoader(dataset, batch_size=8, shuffle=True, num_workers=args.num_workers)
        wrong = 0
        for _ in range(args.epochs):
            for _images, numbers, indices in loader:
                time.sleep(0.020)
                wrong += int((numbers != indices).sum())
        if dataset.file is not None:
            dataset.file.close()
    print(f"{wrong} of {args.epochs * len(dataset)} records were wrong")


if __name__ == "__main__":
    main()
