#!/usr/bin/env python3
"""A small network with batch norms, trained in seconds on pictures that are drawn here, planned at three bits.

    python3 example.py [--program PROGRAM] [--json FILE]     FILE: the figures that are printed
"""
import argparse
import json
import sys
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).resolve().parent))  # not needed where the package is installed
import bitplan  # noqa: E402


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.fc1, self.fc2 = nn.Linear(32 * 16, 64), nn.Linear(64, 4)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


def pictures(count):
    """Pictures of 16 x 16 and their classes: a ring, a disc, a frame or a square, in noise."""
    classes = torch.randint(0, 4, (count,))
    centre, size = torch.rand(count, 2, 1, 1) * 6 + 4.5, torch.rand(count, 1, 1) * 2.5 + 2
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    down, right = (rows - centre[:, 0]).abs(), (columns - centre[:, 1]).abs()
    round_, square = (down ** 2 + right ** 2).sqrt(), torch.maximum(down, right)
    away = torch.where((classes < 2)[:, None, None], round_, square)
    hollow = (classes % 2 == 0)[:, None, None] & (away < size - 1.5)
    return ((away < size) & ~hollow).float()[:, None] + 0.3 * torch.randn(count, 1, 16, 16), classes


def trained(loader):
    net = Net()
    epochs = 8
    optimizer = torch.optim.Adam(net.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=epochs * len(loader))
    for _ in range(epochs):
        for x, y in loader:
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
            schedule.step()
    return net


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--program")
    options.add_argument("--json", type=Path)
    options = options.parse_args()
    torch.manual_seed(1)
    train = DataLoader(TensorDataset(*pictures(3000)), batch_size=64, shuffle=True)
    unseen = DataLoader(TensorDataset(*pictures(1000)), batch_size=250)
    test = DataLoader(TensorDataset(*pictures(2000)), batch_size=250)
    net = trained(train)

    plan = bitplan.plan(net, train, test, calibration=unseen, average_bits=3, program=options.program)
    print(plan)

    plan.apply(net).eval()
    with torch.no_grad():
        right = sum(int((net(x).argmax(1) == y).sum()) for x, y in test)
    print(f"\nthe module itself now: {100 * right / 2000:.2f} % of the test data")
    size = plan.save(Path(plan.folder) / "net.safetensors").stat().st_size
    print(f"file of plan.save(): {size:,} bytes")
    if options.json:
        layers = [dict(name=layer.name, bits=layer.bits, predicted_rise=layer.predicted_rise) for layer in plan.layers]
        options.json.write_text(json.dumps({
            "command": "python3 python/example.py", "torch": torch.__version__,
            "result": {**{key: plan.record[key] for key in ("achieved", "verified")}, "layers": layers,
                       "module_accuracy": right / 2000, "saved_bytes": size, "notes": plan.notes}}, indent=1) + "\n")


if __name__ == "__main__":
    main()
