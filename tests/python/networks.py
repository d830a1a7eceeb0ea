"""A dozen networks as people bring them, planned by the program and measured again in Python.

    networks.py PROGRAM NETWORK     plans NETWORK in a folder of its own and compares
    networks.py --list              the names

Every network is built from scratch with torch, saved as TorchScript, and given images whose labels are its own answers,
so that the float network is right on every image. A network that can be planned is: the accuracy that the plan states
must be what torch.jit.load of quantized.pt measures, in batches of another size. One that cannot is refused with one
line and exit code 65. Exit codes: 0 as expected, 1 not, 77 torch or numpy is missing.
"""
import json
import os
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
except ImportError as error:
    print("skipped:", error)
    sys.exit(77)

TRAINING, TEST, CLASSES = 400, 300, 4


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc = nn.Linear(64, 48), nn.Linear(48, 32), nn.Linear(32, CLASSES)

    def forward(self, x):
        return self.fc(F.relu(self.fc2(F.relu(self.fc1(x.flatten(1))))))


class Cnn(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.conv2, self.bn2 = nn.Conv2d(12, 16, 3, stride=2), nn.BatchNorm2d(16)
        self.dropout, self.fc = nn.Dropout(dropout), nn.Linear(16 * 9, CLASSES)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return self.fc(self.dropout(x.flatten(1)))


class Depthwise(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.depth, self.point = nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(16, 24, 1)
        self.bn1, self.bn2, self.fc = nn.BatchNorm2d(16), nn.BatchNorm2d(24), nn.Linear(24, CLASSES)

    def forward(self, x):
        x = F.relu6(self.bn1(self.depth(F.relu(self.stem(x)))))
        return self.fc(F.relu6(self.bn2(self.point(x))).mean([2, 3]))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.conv1, self.conv2 = (nn.Conv2d(i, 12, 3, padding=1) for i in (1, 12, 12))
        self.norm1, self.norm2, self.fc = nn.GroupNorm(3, 12), nn.GroupNorm(3, 12), nn.Linear(12 * 16, CLASSES)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = x + self.norm2(self.conv2(F.gelu(self.norm1(self.conv1(x)))))
        return self.fc(F.max_pool2d(x, 2).flatten(1))


class Conv1d(nn.Module):
    """conv1d over the columns, a linear layer on top."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(8, 24, 3, padding=1), nn.Conv1d(24, 24, 3, padding=1)
        self.fc1, self.fc = nn.Linear(24 * 8, 32), nn.Linear(32, CLASSES)

    def forward(self, x):
        x = F.relu(self.conv2(F.relu(self.conv1(x.squeeze(1)))))
        return self.fc(F.relu(self.fc1(x.flatten(1))))


class TimeMajorRows(nn.Module):
    """A linear layer that sees [T, N, C], then one that sees [T * N, C]."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc = nn.Linear(8, 32), nn.Linear(32, 32), nn.Linear(32, CLASSES)

    def forward(self, x):
        x = x.squeeze(1).permute(1, 0, 2)
        x = F.relu(self.fc1(x))
        t, n = x.size(0), x.size(1)
        x = F.relu(self.fc2(x.reshape(t * n, 32))).reshape(t, n, 32)
        return self.fc(x.mean(0))


class Attention(nn.Module):
    """nn.MultiheadAttention, time first, with a causal mask of -inf in a buffer."""

    def __init__(self):
        super().__init__()
        self.embed, self.attention = nn.Linear(8, 16), nn.MultiheadAttention(16, 2)
        self.fc = nn.Linear(16, CLASSES)
        self.register_buffer("mask", torch.full((8, 8), float("-inf")).triu(1))

    def forward(self, x):
        x = self.embed(x.squeeze(1).permute(1, 0, 2))
        y, _ = self.attention(x, x, x, attn_mask=self.mask)
        return self.fc((x + y).mean(0))


class Encoder(nn.Module):
    def __init__(self, batch_first=False):
        super().__init__()
        self.batch_first = batch_first
        self.embed = nn.Linear(8, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=batch_first)
        self.encoder, self.fc = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(16, CLASSES)

    def forward(self, x):
        x = x.squeeze(1)
        if not self.batch_first:
            x = x.permute(1, 0, 2)
        x = self.encoder(self.embed(x))
        return self.fc(x.mean(1 if self.batch_first else 0))


class Lstm(nn.Module):
    """An LSTM over time-first rows."""

    def __init__(self):
        super().__init__()
        self.embed, self.lstm = nn.Linear(8, 16), nn.LSTM(16, 24)
        self.fc1, self.fc = nn.Linear(24, 32), nn.Linear(32, CLASSES)

    def forward(self, x):
        x = self.embed(x.squeeze(1).permute(1, 0, 2))
        y, _ = self.lstm(x)
        return self.fc(F.relu(self.fc1(y))[-1])


class Tied(nn.Module):
    """One weight used twice."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc = nn.Linear(64, 64), nn.Linear(64, CLASSES)

    def forward(self, x):
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc(torch.tanh(self.fc1(x)))


class MaskedLogits(nn.Module):
    """Two of six outputs can never be the answer."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc = nn.Linear(64, 48), nn.Linear(48, CLASSES + 2)
        self.register_buffer("never", torch.tensor([0.0] * CLASSES + [float("-inf")] * 2))

    def forward(self, x):
        return self.fc(F.relu(self.fc1(x.flatten(1)))) + self.never


class HiddenWeights(nn.Module):
    """Weights in a buffer (planned), in a constant of the trace and in views into one parameter (left in float)."""

    hidden = 2 * 32 * 32  # weights that are no parameters

    def __init__(self):
        super().__init__()
        self.fc1, self.fc = nn.Linear(64, 32), nn.Linear(32, CLASSES)
        self.register_buffer("buffer", torch.randn(32, 32) * 0.3)
        self.constant = torch.randn(32, 32) * 0.3
        self.flat = nn.Parameter(torch.randn(2 * 32 * 32) * 0.3)

    def forward(self, x):
        x = F.relu(F.linear(F.relu(self.fc1(x.flatten(1))), self.buffer))
        x = F.relu(F.linear(x, self.constant))
        for part in self.flat.view(2, 32, 32):
            x = F.relu(F.linear(x, part))
        return self.fc(x)


class Answers(nn.Module):
    """A dictionary instead of logits."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(64, CLASSES)

    def forward(self, x):
        return {"logits": self.fc(x.flatten(1))}


def scripted(model):
    return torch.jit.script(model.eval())


def traced(model, strict=True):
    return torch.jit.trace(model.eval(), torch.randn(4, 1, 8, 8), check_trace=False, strict=strict)


def traced_in_training(model):
    return torch.jit.trace(model.train(), torch.randn(4, 1, 8, 8), check_trace=False)


# name: (model, how it is saved, words of the refusal or None)
NETWORKS = {
    "mlp scripted": (Mlp, scripted, None),
    "cnn traced": (Cnn, traced, None),
    "depthwise cnn scripted": (Depthwise, scripted, None),
    "residual with group norm traced": (Residual, traced, None),
    "conv1d features scripted": (Conv1d, scripted, None),
    "time-major rows traced": (TimeMajorRows, traced, None),
    "attention with a mask traced": (Attention, traced, None),
    "attention with a mask scripted": (Attention, scripted, None),
    "transformer encoder scripted": (Encoder, scripted, None),
    "transformer encoder traced": (Encoder, traced, None),
    "transformer encoder batch first scripted": (lambda: Encoder(True), scripted, None),
    "lstm time first scripted": (Lstm, scripted, None),
    "tied weights scripted": (Tied, scripted, None),
    "masked logits scripted": (MaskedLogits, scripted, None),
    "weights in a buffer, a constant and views traced": (HiddenWeights, traced, None),
    "partly frozen cnn": (Cnn, lambda m: torch.jit.freeze(scripted(m), preserved_attrs=["fc"]), None),
    "dynamically quantized cnn": (Cnn, lambda m: scripted(torch.quantization.quantize_dynamic(m, {nn.Linear})),
                                  "quantized already"),
    "cnn traced in training mode": (lambda: Cnn(0.5), traced_in_training, "train"),
    "frozen cnn": (Cnn, lambda m: torch.jit.freeze(scripted(m)), "frozen"),
    "dictionary of answers": (Answers, lambda m: traced(m, strict=False), "dictionary"),
}


def write(folder, name):
    make, save, refusal = NETWORKS[name]
    torch.manual_seed(3)
    rng = np.random.default_rng(3)
    model = make()
    for module in model.modules():  # statistics as after training, not those of a new network
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    model.eval()
    last = model.fc
    last.weight.data *= 6.0 / last.weight.data.std() / last.weight.shape[1] ** 0.5
    images = {"train": rng.normal(size=(TRAINING, 1, 8, 8)).astype("f4"),
              "test": rng.normal(size=(TEST, 1, 8, 8)).astype("f4")}
    with torch.no_grad():
        answers = {split: model(torch.from_numpy(x)) for split, x in images.items()}
        if isinstance(answers["train"], dict):
            answers = {split: a["logits"] for split, a in answers.items()}
        # Outputs are centred, so that every class is the answer of some images.
        if last.bias is not None and not isinstance(model, MaskedLogits):
            last.bias.data -= answers["train"].mean(0)
            answers = {split: a - answers["train"].mean(0) for split, a in answers.items()}
    labels = {split: a.argmax(1).numpy().astype("i8") for split, a in answers.items()}
    for split in images:
        np.save(f"{folder}/{split}-images.npy", images[split])
        np.save(f"{folder}/{split}-labels.npy", labels[split])
    save(model).save(f"{folder}/model.pt")
    with open(f"{folder}/recipe.yaml", "w", encoding="utf-8") as recipe:
        recipe.write("bitplan: 1\nname: network\nmodel: {file: model.pt}\n"
                     "data: {name: npy, train_images: train-images.npy, train_labels: train-labels.npy,\n"
                     "       test_images: test-images.npy, test_labels: test-labels.npy, calibration: 100}\n"
                     "posterior: {samples: 300}\nverify: {bootstrap: 100}\n"
                     "allocate: {allocator: exact, budget: {average_bits: 4.0}}\n")
    weights = sum(parameter.numel() for parameter in model.parameters()) + getattr(model, "hidden", 0)
    if "frozen" in name:  # freezing folds the batch norms into the convolutions before them
        weights -= sum(2 * m.num_features for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    return images["test"], labels["test"], weights, refusal


def fail(text):
    print("FAILED:", text)
    sys.exit(1)


def main():
    if sys.argv[1:] == ["--list"]:
        print("\n".join(NETWORKS))
        return
    program, name = os.path.abspath(sys.argv[1]), sys.argv[2]
    with tempfile.TemporaryDirectory() as folder:
        images, labels, weights, refusal = write(folder, name)
        run = subprocess.run([program, "run", "recipe.yaml", "--data", ".", "--out", "out", "--json", "--quiet"],
                             cwd=folder, capture_output=True, text=True, check=False)
        lines = run.stderr.strip().splitlines()
        if "Traceback" in run.stderr:
            fail(run.stderr)
        if refusal is not None:
            if run.returncode != 65 or len(lines) != 1 or refusal not in lines[0]:
                fail(f"expected a refusal (65) that says '{refusal}', got {run.returncode}: {run.stderr}")
            print("refused:", lines[0])
            return
        if run.returncode != 0:
            fail(f"exit code {run.returncode}: {run.stderr}")
        report = json.loads(run.stdout)
        verified = report["plan"]["verified"] if "plan" in report else report["verified"]
        stated = verified["quantized"]["accuracy"]
        planned, left = sum(layer["weights"] for layer in report["layers"]), report["left_in_float"]
        if planned + left["weights"] != weights:
            fail(f"{planned} weights planned and {left['weights']} left in float are not all {weights}")
        if abs(left["share"] - left["weights"] / weights) > 1e-5:
            fail(f"the share left in float is {left['share']}, not {left['weights'] / weights}")
        network = torch.jit.load(f"{folder}/out/quantized.pt").eval()
        with torch.no_grad():
            answers = torch.cat([network(part) for part in torch.from_numpy(images).split(37)])
        measured = float((answers.argmax(1).numpy() == labels).mean())
        print(f"{name}: float {verified['float']['accuracy']:.4f}, plan {stated:.4f}, Python {measured:.4f}, "
              f"{100 * left['share']:.1f} % left in float")
        if abs(verified["float"]["accuracy"] - 1.0) > 0.5 / TEST:
            fail("the float network is not right on every image")
        if abs(stated - measured) > 0.5 / TEST:
            fail("the plan states another accuracy than Python measures")
        if measured < 0.6:
            fail("four bits lose more than 40 % of the answers")


if __name__ == "__main__":
    main()
