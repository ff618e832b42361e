"""Started with `python -m package`."""

from torch.utils.data import DataLoader

loader = DataLoader([1, 2, 3])
print(list(loader))
