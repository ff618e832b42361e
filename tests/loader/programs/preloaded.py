"""A program that tells its fork server what to import; prints who imported it in each of two epochs."""

from __future__ import annotations

import multiprocessing
import os

from torch.utils.data import Dataset

import keepfed


class Who(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, _):
        import served

        return served.IMPORTED_BY, os.getpid()


if __name__ == "__main__":
    multiprocessing.set_forkserver_preload(["served", "no_such_module"])
    for _ in range(2):
        for importer, worker in keepfed.DataLoader(
            Who(), batch_size=None, num_workers=1, multiprocessing_context="forkserver"
        ):
            print(importer, worker)
