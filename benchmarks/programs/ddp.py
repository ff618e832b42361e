"""Two ranks on one host train a small model together on samples that take 20 ms of waiting each.

Start it with `torchrun --nproc-per-node 2 ddp.py`.
"""

import argparse
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler


class Remote(Dataset):
    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        time.sleep(0.020)
        return torch.full((64,), index / self.length), index % 2


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=500, help="steps per epoch and rank")
    parser.add_argument("--num-workers", type=int, default=1)
    parser.add_argument("--log-every", type=int, default=25)
    args = parser.parse_args()

    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    dataset = Remote(8 * args.steps * dist.get_world_size())
    sampler = DistributedSampler(dataset)
    loader = DataLoader(dataset, batch_size=8, sampler=sampler, num_workers=args.num_workers)
    for epoch in range(1, args.epochs + 1):
        sampler.set_epoch(epoch)
        start = time.perf_counter()
        for step, (features, labels) in enumerate(loader, 1):
            loss = nn.functional.cross_entropy(model(features), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            time.sleep(0.040)
            if step % args.log_every == 0 and dist.get_rank() == 0:
                now = time.perf_counter()
                print(f"epoch {epoch} step {step}: {args.log_every / (now - start):.2f} batches/s", flush=True)
                start = now
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
