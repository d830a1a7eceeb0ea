"""What the tests of the Python package share: small networks, data that they learn in seconds, and how tests are run.

A test file ends with main(), and is called with the path of the program. Exit codes: 0, 1, and 77 where torch or numpy
is missing.
"""
import os
import stat
import sys
import tempfile
import unittest
import warnings
from pathlib import Path

try:
    import numpy as np
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
except ImportError as error:
    print("skipped:", error)
    sys.exit(77)

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "python"))
import bitplan  # noqa: E402

torch.set_num_threads(1)
PROGRAM = None  # set by main()


class Mlp(nn.Module):
    """Tabular data: ten features, four classes."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 24), nn.ReLU())
        self.head = nn.Linear(24, 4)

    def forward(self, x):
        return self.head(self.body(x))


class Cnn(nn.Module):
    """Images of 8 x 8, batch norms, dropout."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 10, 3, padding=1, bias=False), nn.BatchNorm2d(10)
        self.conv2, self.bn2 = nn.Conv2d(10, 14, 3, stride=2), nn.BatchNorm2d(14)
        self.dropout, self.fc = nn.Dropout(0.2), nn.Linear(14 * 9, 4)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return self.fc(self.dropout(x.flatten(1)))


class Transformer(nn.Module):
    """Sequences of eight tokens out of twelve."""

    def __init__(self):
        super().__init__()
        self.tokens, self.places = nn.Embedding(12, 16), nn.Parameter(torch.randn(8, 16) * 0.1)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True), 2,
                                             enable_nested_tensor=False)
        self.fc = nn.Linear(16, 3)

    def forward(self, x):
        return self.fc(self.encoder(self.tokens(x) + self.places).mean(1))


def table(count, seed):
    """(x, y): four overlapping clusters."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(4, 10))
    y = rng.integers(0, 4, count)
    return torch.from_numpy((centres[y] + 0.7 * rng.normal(size=(count, 10))).astype("f4")), torch.from_numpy(y)


def pictures(count, seed):
    """(x, y): a bright bar in noise, lying, standing, falling or rising."""
    rng = np.random.default_rng(seed)
    y, x = rng.integers(0, 4, count), 0.6 * rng.normal(size=(count, 1, 8, 8))
    for i in range(count):
        at, rows = rng.integers(1, 7), np.arange(8)
        columns = (np.full(8, at), rows, (rows + at) % 8, (at - rows) % 8)[y[i]]
        x[i, 0][(columns, rows) if y[i] == 0 else (rows, np.full(8, at) if y[i] == 1 else columns)] += 1.5
    return torch.from_numpy(x.astype("f4")), torch.from_numpy(y)


def sentences(count, seed):
    """(x, y): which of the tokens 0, 1 and 2 stands there most often."""
    rng = np.random.default_rng(seed)
    y, x = rng.integers(0, 3, count), rng.integers(0, 12, (count, 8))
    for i in range(count):
        x[i, rng.choice(8, 3, replace=False)] = y[i]
    return torch.from_numpy(x), torch.from_numpy(np.array([np.bincount(row, minlength=3)[:3].argmax() for row in x]))


def trained(make, data, epochs=6, seed=1):
    """A network after some epochs, in training mode."""
    torch.manual_seed(seed)
    model, (x, y) = make(), data
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(50):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return model


def logits(model, x):
    was, answers = model.training, []
    model.eval()
    with torch.no_grad():
        answers = torch.cat([model(part) for part in x.split(128)])
    model.train(was)
    return answers


def accuracy(model, data):
    return float((logits(model, data[0]).argmax(1) == data[1]).double().mean())


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


class Case(unittest.TestCase):
    """A test with a folder and random numbers of its own, and checks of errors and states."""

    def setUp(self):
        torch.manual_seed(0)
        self._folder = tempfile.TemporaryDirectory()
        self.addCleanup(self._folder.cleanup)
        self.folder = Path(self._folder.name)

    def refused(self, code, *words):
        """with self.refused(65, "label"): ...  wants a bitplan.Error of one line with that code and those words."""
        return _Refused(self, code, words)

    def same_state(self, module, expected):
        seen = module.state_dict()
        self.assertEqual(set(seen), set(expected))
        for name, value in expected.items():
            self.assertTrue(torch.equal(seen[name], value), f"{name} differs")

    def script(self, name, text):
        """An executable file in the folder."""
        file = self.folder / name
        file.write_text("#!/bin/sh\n" + text)
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
        return file

    def plan(self, module, *data, **options):
        """bitplan.plan with little work: few resamples, one thread, no progress."""
        settings = {"verify.bootstrap": 200, "allocate.draws": 0, **options.pop("settings", {})}
        return bitplan.plan(module, *data, **{"program": PROGRAM, "threads": 1, "quiet": True, "settings": settings,
                                              **options})


class _Refused:
    def __init__(self, case, code, words):
        self.case, self.code, self.words = case, code, words

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        if kind is not None and not issubclass(kind, bitplan.Error):
            return False
        self.case.assertIsNotNone(kind, "nothing was refused")
        message = str(error)
        self.case.assertNotIn("\n", message)
        for word in self.words:
            self.case.assertIn(word, message)
        self.case.assertEqual(error.code, self.code, message)
        return True


def main():
    global PROGRAM
    if len(sys.argv) < 2:
        sys.exit(f"usage: {sys.argv[0]} PROGRAM [TEST ...]")
    PROGRAM = os.path.abspath(sys.argv.pop(1))
    sys.modules["package_support"].PROGRAM = PROGRAM
    warnings.simplefilter("error", UserWarning)
    unittest.main(module="__main__", warnings=None)
