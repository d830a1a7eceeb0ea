"""Networks as people bring them, planned, exported as ONNX and run in ONNX Runtime.

    onnx_networks.py PROGRAM RUNTIME NETWORK    RUNTIME: tests/exporters/onnx_runtime.js
    onnx_networks.py --list                     the names

ONNX Runtime must give the answers of quantized.pt: the same class on every image, and every number to 1e-4 of the
largest. Half of the networks are those of networks.py. The others answer with the outputs of one kind of operators side
by side, so that a wrong translation shows as a wrong number, and the operator is named. Exit codes: 0 as expected, 1
not, 77 when torch, numpy, node or ONNX Runtime is missing.
"""
import json
import os
import shutil
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

import networks

IMAGES = 90
SETTINGS = ["quantizer.rounding=nearest", "quantizer.output_correction=off", "posterior.samples=40",
            "verify.bootstrap=100"]


class SideBySide(nn.Module):
    """The outputs of operators on the 6 x 8 x 8 outputs of a convolution, one after another."""

    def __init__(self, operators, parts=None, scale=1.0):
        super().__init__()
        self.stem, self.operators, self.scale = nn.Conv2d(1, 6, 3, padding=1), operators, scale
        self.parts = nn.ModuleDict(parts or {})

    def forward(self, x):
        h = self.stem(x) * self.scale
        return torch.cat([self.apply_one(name, h).flatten(1).float() for name in self.operators], 1)

    def apply_one(self, name, h):
        operator = self.operators[name]
        return operator(h, self.parts[name]) if name in self.parts else operator(h)

    def columns(self, x):
        h = self.stem(x) * self.scale
        return {name: self.apply_one(name, h).flatten(1).shape[1] for name in self.operators}


def of_modules(**parts):
    """Every module on the same input."""
    return lambda: SideBySide({name: (lambda h, part: part(h)) for name in parts},
                              {name: make() for name, make in parts.items()})


def rows(h):  # [N, 6, 64]
    return h.flatten(2)


ACTIVATIONS = {
    "relu": F.relu, "relu6": F.relu6, "hardtanh": lambda h: F.hardtanh(h, -0.4, 0.7), "sigmoid": torch.sigmoid,
    "leaky_relu": lambda h: F.leaky_relu(h, 0.2), "elu": lambda h: F.elu(h, 0.7), "celu": lambda h: F.celu(h, 0.8),
    "selu": F.selu, "gelu": F.gelu, "gelu tanh": lambda h: F.gelu(h, approximate="tanh"), "silu": F.silu,
    "hardswish": F.hardswish, "hardsigmoid": F.hardsigmoid, "tanh": torch.tanh, "mish": F.mish,
    "softmax": lambda h: F.softmax(h, 1), "log_softmax": lambda h: F.log_softmax(h, -1), "softplus": F.softplus,
    "softplus beta": lambda h: F.softplus(h, 2.0, 1.0), "softsign": F.softsign, "logsigmoid": F.logsigmoid,
    "glu": lambda h: F.glu(h, 1), "threshold": lambda h: F.threshold(h, 0.1, -2.0),
    "relu_": lambda h: F.relu_(h * 1.0),
    "dropout": lambda h: F.dropout(h, 0.3, False),
}
POOLS = {
    "max": lambda h: F.max_pool2d(h, 2), "max padded": lambda h: F.max_pool2d(h, 3, 2, 1),
    "max dilated": lambda h: F.max_pool2d(h, 2, 1, 0, 2),
    "max up": lambda h: F.max_pool2d(h, 3, 2, 1, ceil_mode=True),
    "max up bare": lambda h: F.max_pool2d(h, 3, 2, ceil_mode=True), "max 1d": lambda h: F.max_pool1d(rows(h), 5, 3),
    "max 3d": lambda h: F.max_pool3d(h.unsqueeze(1), 2), "avg": lambda h: F.avg_pool2d(h, 2),
    "avg padded": lambda h: F.avg_pool2d(h, 3, 2, 1), "avg up": lambda h: F.avg_pool2d(h, 3, 2, 0, True),
    "avg up padded": lambda h: F.avg_pool2d(h, 3, 2, 1, True), "avg 1d": lambda h: F.avg_pool1d(rows(h), 5, 3, 1),
    "avg without padding": lambda h: F.avg_pool2d(h, 3, 2, 1, count_include_pad=False),
    "avg up without padding": lambda h: F.avg_pool2d(h, 3, 2, 1, True, False),
    "avg 3d": lambda h: F.avg_pool3d(h.unsqueeze(1), 2), "adaptive 1": lambda h: F.adaptive_avg_pool2d(h, 1),
    "adaptive even": lambda h: F.adaptive_avg_pool2d(h, 4),
    "adaptive uneven": lambda h: F.adaptive_avg_pool2d(h, (3, 5)),
    "adaptive 1d": lambda h: F.adaptive_avg_pool1d(rows(h), 10),
    "adaptive max": lambda h: F.adaptive_max_pool2d(h, 4),
    "adaptive 3d": lambda h: F.adaptive_avg_pool3d(h.unsqueeze(1), (2, 3, 4)),
    "pad": lambda h: F.pad(h, (1, 2, 0, 3), value=0.5), "pad reflect": lambda h: F.pad(h, (1, 2, 3, 0), "reflect"),
    "pad replicate": lambda h: F.pad(h, (1, 2, 3, 0), "replicate"), "crop": lambda h: F.pad(h, (-1, -2)),
    "pad circular": lambda h: F.pad(h, (1, 2, 3, 0), "circular"),
    "nearest": lambda h: F.interpolate(h, scale_factor=2.0),
    "bilinear": lambda h: F.interpolate(h, (11, 13), mode="bilinear"),
    "bilinear corners": lambda h: F.interpolate(h, (11, 13), mode="bilinear", align_corners=True),
    "pixel shuffle": lambda h: F.pixel_shuffle(h[:, :4], 2),
}
ELEMENTS = {
    "add": lambda h: h + h.flip(3), "add alpha": lambda h: torch.add(h, h.flip(2), alpha=0.3),
    "sub": lambda h: 2.0 - h,
    "sub alpha": lambda h: torch.sub(h, 1.0, alpha=2), "mul": lambda h: h * h.mean(1, True), "div": lambda h: h / 3,
    "floor div": lambda h: torch.div(h * 5, 2.0, rounding_mode="floor"), "pow": lambda h: h ** 2, "neg": lambda h: -h,
    "abs": torch.abs, "exp": torch.exp, "log": lambda h: torch.log(h.abs() + 0.1), "sqrt": lambda h: h.abs().sqrt(),
    "rsqrt": lambda h: torch.rsqrt(h * h + 0.1), "reciprocal": lambda h: 1 / (h * h + 0.5), "sin": torch.sin,
    "cos": torch.cos, "erf": torch.erf, "sign": torch.sign, "floor": lambda h: (h * 3).floor(),
    "ceil": lambda h: (h * 3).ceil(),
    "round": lambda h: (h * 3).round(), "clamp": lambda h: h.clamp(-0.3, 0.4),
    "clamp_min": lambda h: h.clamp(min=0.1),
    "clamp_max": lambda h: h.clamp(max=0.1), "maximum": lambda h: torch.maximum(h, h.flip(3)),
    "min": lambda h: torch.min(h, h.flip(3)), "greater": lambda h: h > 0.1, "le": lambda h: h <= h.flip(3),
    "ne": lambda h: h.round() != 0,
    "eq": lambda h: h.round() == 0, "and": lambda h: (h > 0) & (h < 0.5), "not": lambda h: ~(h > 0),
    "where": lambda h: torch.where(h > 0, h, h * 0.1), "masked_fill": lambda h: h.masked_fill(h > 0.3, -1.0),
    "long": lambda h: (h * 10).long() + 1,
    "whole division": lambda h: torch.div((h * 20).long(), 3, rounding_mode="trunc"),
    "expm1": torch.expm1, "log1p": lambda h: torch.log1p(h.abs()),
    "addcmul": lambda h: torch.addcmul(h, h, h, value=0.5),
    "in place": lambda h: (h * 2).add_(1.0).mul_(h), "batch as a number": lambda h: h * h.size(0) / h.shape[0],
}
SHAPES = {
    "view": lambda h: h.view(h.size(0), -1, 16)[:, 1],
    "reshape": lambda h: h.permute(0, 2, 3, 1).reshape(-1, 48).view(h.shape[0], -1),
    "merged batch": lambda h: (h.reshape(-1, 8) * 2).reshape(h.size(0), -1),
    "transpose": lambda h: h.transpose(1, -1),
    "squeeze": lambda h: h.unsqueeze(2).squeeze(2), "cat": lambda h: torch.cat([h, h * 2], -1),
    "stack": lambda h: torch.stack([h, -h], 2),
    "chunk": lambda h: h.chunk(3, 1)[1], "split": lambda h: torch.cat(h.split([1, 3, 2], 1)[::2], 1),
    "unbind": lambda h: h.unbind(1)[2],
    "slice": lambda h: h[:, 1:5:2, -3:], "select": lambda h: h[:, -2, :, 3], "narrow": lambda h: h.narrow(1, 2, 3),
    "index_select": lambda h: h.index_select(1, torch.tensor([3, 0])), "index": lambda h: h[:, torch.tensor([4, 1])],
    "gather": lambda h: h.gather(1, torch.zeros(h.size(0), 1, 8, 8, dtype=torch.long)),
    "flip": lambda h: h.flip(2, 3),
    "expand": lambda h: h[:, :1].expand(-1, 3, -1, -1), "expand_as": lambda h: h[:, :1].expand_as(h),
    "repeat": lambda h: h.repeat(1, 2, 1, 1),
    "repeat_interleave": lambda h: h.repeat_interleave(2, 1), "roll": lambda h: h.roll((1, -2), (2, 3)),
    "tril": lambda h: h.tril(1),
    "triu": lambda h: h.triu(), "movedim": lambda h: h.movedim(1, 3),
    "token": lambda h: torch.cat([torch.zeros(h.size(0), 1, 8, 8), h], 1),
    "positions": lambda h: rows(h) + torch.arange(64).expand(h.size(0), 1, 64),
    "unflatten": lambda h: h.unflatten(1, (2, 3)),
    "shuffle": lambda h: h.view(h.size(0), 2, 3, 8, 8).transpose(1, 2).reshape(h.size(0), 6, 8, 8),
    "mT": lambda h: rows(h).mT,
    "of constants": lambda h: h * torch.ones(6, 1, 1).cumsum(0),
    "batch row": lambda h: h - h * 0 + torch.ones(h.size(0), 1, 1, 1),
}
REDUCTIONS = {
    "mean": lambda h: h.mean([2, 3]), "mean keep": lambda h: h.mean(1, keepdim=True), "sum": lambda h: h.sum(-1),
    "prod": lambda h: h.prod(3),
    "amax": lambda h: h.amax([2, 3]), "amin": lambda h: h.amin(1), "max": lambda h: h.max(2)[0],
    "max position": lambda h: rows(h).max(2)[1],
    "min": lambda h: h.min(1, keepdim=True)[0], "argmax": lambda h: rows(h).argmax(1), "var": lambda h: h.var([2, 3]),
    "var biased": lambda h: h.var(1, unbiased=False), "std": lambda h: h.std(2), "norm": lambda h: h.norm(2, 1),
    "norm 1": lambda h: h.norm(1, 1),
    "normalize": lambda h: F.normalize(h, dim=1), "logsumexp": lambda h: h.logsumexp(1),
    "cumsum": lambda h: h.cumsum(2),
    "topk": lambda h: rows(h).topk(3, 2)[0], "einsum": lambda h: torch.einsum("ncij,nckj->nik", h, h),
    "matmul": lambda h: h @ h.transpose(2, 3),
    "bmm": lambda h: torch.bmm(rows(h), rows(h).transpose(1, 2)),
    "attention": lambda h: F._scaled_dot_product_attention(h, h, h)[0],
    "baddbmm": lambda h: torch.baddbmm(rows(h)[:, :, :6], rows(h), rows(h).mT, beta=0.5, alpha=0.1),
}


def convolutions():
    return of_modules(
        stride=lambda: nn.Conv2d(6, 4, 3, 2), grouped=lambda: nn.Conv2d(6, 6, 3, groups=3),
        depthwise=lambda: nn.Conv2d(6, 12, 3, groups=6),
        dilated=lambda: nn.Conv2d(6, 4, 3, dilation=2, padding=(1, 2)),
        same=lambda: nn.Conv2d(6, 4, 4, padding="same", bias=False),
        valid=lambda: nn.Conv2d(6, 4, 3, padding="valid"),
        reflect=lambda: nn.Conv2d(6, 4, 3, padding=1, padding_mode="reflect"),
        circular=lambda: nn.Conv2d(6, 4, 3, padding=1, padding_mode="circular"),
        replicate=lambda: nn.Conv2d(6, 4, 3, padding=1, padding_mode="replicate"),
        transposed=lambda: nn.ConvTranspose2d(6, 4, 3, 2, 1, 1),
        transposed_groups=lambda: nn.ConvTranspose2d(6, 4, 3, 2, groups=2, dilation=2),
        one=lambda: nn.Sequential(nn.Flatten(2), nn.Conv1d(6, 4, 5, 2, 2)),
        three=lambda: nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Conv3d(2, 3, 3, padding=1)),
        transposed_one=lambda: nn.Sequential(nn.Flatten(2), nn.ConvTranspose1d(6, 3, 4, 2)),
        linear=lambda: nn.Linear(8, 5), bilinear=lambda: nn.Sequential(nn.Flatten(), nn.Linear(384, 7)))()


def norms():
    return of_modules(
        batch=lambda: nn.BatchNorm2d(6), batch_bare=lambda: nn.BatchNorm2d(6, affine=False),
        layer=lambda: nn.LayerNorm([8, 8]),
        layer_bare=lambda: nn.LayerNorm(8, elementwise_affine=False), group=lambda: nn.GroupNorm(3, 6),
        group_bare=lambda: nn.GroupNorm(2, 6, affine=False),
        instance=lambda: nn.InstanceNorm2d(6), instance_affine=lambda: nn.InstanceNorm2d(6, affine=True),
        prelu=lambda: nn.PReLU(6), prelu_one=nn.PReLU,
        batch_one=lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(384)), response=lambda: nn.Softmax2d())()


class Tokens(nn.Module):
    """Words by their numbers: an embedding with positions, an encoder layer by hand, a head."""

    def __init__(self):
        super().__init__()
        self.words, self.positions = nn.Embedding(30, 16), nn.Parameter(torch.randn(64, 16) * 0.2)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.norm, self.fc = nn.LayerNorm(16), nn.Linear(16, networks.CLASSES)

    def forward(self, x):
        x = self.words((x.flatten(1).clamp(-2, 2) * 7 + 15).long()) + self.positions
        n, t = x.shape[0], x.shape[1]
        q, k, v = self.qkv(x).view(n, t, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = torch.softmax(q @ k.transpose(-2, -1) / 2.0, -1) @ v
        x = self.norm(x + self.out(mixed.transpose(1, 2).reshape(n, t, 16)))
        return self.fc(x.mean(1))


class Inverted(nn.Module):
    """A mobile network: depthwise separable blocks with squeeze and excitation."""

    def __init__(self):
        super().__init__()
        self.expand, self.depth = nn.Conv2d(1, 12, 1, bias=False), nn.Conv2d(12, 12, 3, 1, 1, groups=12, bias=False)
        self.norm, self.squeeze, self.excite = nn.BatchNorm2d(12), nn.Conv2d(12, 4, 1), nn.Conv2d(4, 12, 1)
        self.project, self.fc = nn.Conv2d(12, 8, 1), nn.Linear(8 * 16, networks.CLASSES)

    def forward(self, x):
        x = F.hardswish(self.norm(self.depth(F.relu6(self.expand(x)))))
        gate = F.hardsigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))
        return self.fc(F.max_pool2d(self.project(x * gate), 2).flatten(1))


class Unknown(nn.Module):
    """An operator that has no translation."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(64, networks.CLASSES)

    def forward(self, x):
        return torch.asinh(self.fc(x.flatten(1)))


class Thresholded(nn.Module):
    """A branch that the numbers of the activations choose."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(64, networks.CLASSES)

    def forward(self, x):
        y = self.fc(x.flatten(1))
        if bool((y.max() > 1000.0).item()):
            y = y * 2
        return y


class RecurrentLayers(nn.Module):
    """Every kind, one and several layers, one and both directions, with and without biases and initial states; what it
    answers with are outputs and last states."""

    def __init__(self):
        super().__init__()
        self.lstm, self.gru = nn.LSTM(8, 6, bidirectional=True), nn.GRU(8, 6, 2, bidirectional=True, batch_first=True)
        self.deep, self.tanh = nn.LSTM(8, 5, 3, bias=False, batch_first=True), nn.RNN(8, 7)
        self.relu = nn.RNN(8, 4, 2, nonlinearity="relu", batch_first=True, bidirectional=True)
        self.state, self.fc = nn.Linear(8, 6), nn.Linear(8, 4)

    def forward(self, x):
        rows = x.squeeze(1)
        a, (h, c) = self.lstm(rows.transpose(0, 1))
        first = torch.tanh(self.state(rows[:, 0])).unsqueeze(0).repeat(4, 1, 1)
        b, g = self.gru(rows, first)
        d, (dh, dc) = self.deep(rows)
        e, eh = self.tanh(rows.transpose(0, 1))
        f, fh = self.relu(rows)
        parts = [a.transpose(0, 1), h.transpose(0, 1), c.transpose(0, 1), b, g.transpose(0, 1), d, dh.transpose(0, 1),
                 dc.transpose(0, 1), e.transpose(0, 1), eh.transpose(0, 1), f, fh.transpose(0, 1)]
        return torch.cat([part.flatten(1) for part in parts] + [self.fc(rows[:, 0])], 1)


class RecurrentCells(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.gru, self.rnn = nn.LSTMCell(8, 6), nn.GRUCell(6, 5), nn.RNNCell(5, 4, nonlinearity="relu")

    def forward(self, x):
        rows = x.squeeze(1)
        h = torch.zeros(rows.shape[0], 6)
        c = torch.zeros(rows.shape[0], 6)
        g = torch.zeros(rows.shape[0], 5)
        r = torch.zeros(rows.shape[0], 4)
        for t in range(8):
            h, c = self.lstm(rows[:, t], (h, c))
            g = self.gru(h, g)
            r = self.rnn(g, r)
        return torch.cat([h, c, g, r], 1)


class ProjectedLstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(8, 12, proj_size=6, batch_first=True), nn.Linear(6, 4)

    def forward(self, x):
        return self.fc(self.lstm(x.squeeze(1))[0][:, -1])


class ResidualBlock(nn.Module):
    """Convolutions with a sum, a pool and linear layers: all that integer kernels are for."""

    def __init__(self):
        super().__init__()
        self.stem, self.left, self.right = (nn.Conv2d(c, 8, 3, padding=1, bias=False) for c in (1, 8, 8))
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(3))
        self.fc1, self.fc2 = nn.Linear(8 * 16, 24), nn.Linear(24, networks.CLASSES)

    def forward(self, x):
        x = F.relu(self.norms[0](self.stem(x)))
        y = self.norms[2](self.right(F.relu(self.norms[1](self.left(x)))))
        x = F.max_pool2d(F.relu(y + x), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


KINDS = {"activations": ACTIVATIONS, "pools": POOLS, "elements": ELEMENTS, "shapes": SHAPES, "reductions": REDUCTIONS}
# name: (model, how it is saved, words of the refusal or None)
NETWORKS = {name: entry for name, entry in networks.NETWORKS.items() if entry[2] is None}
NETWORKS |= {kind: (lambda own=own: SideBySide(own), networks.traced, None) for kind, own in KINDS.items()}
NETWORKS |= {"convolutions": (convolutions, networks.traced, None), "norms": (norms, networks.traced, None),
             "token transformer scripted": (Tokens, networks.scripted, None),
             "token transformer traced": (Tokens, networks.traced, None),
             "inverted residual scripted": (Inverted, networks.scripted, None),
             "residual block scripted": (ResidualBlock, networks.scripted, None),
             "recurrent layers scripted": (RecurrentLayers, networks.scripted, None),
             "recurrent layers traced": (RecurrentLayers, networks.traced, None),
             "recurrent cells scripted": (RecurrentCells, networks.scripted, None),
             "projected lstm": (ProjectedLstm, networks.scripted, "projects its states"),
             "unknown operator": (Unknown, networks.scripted, "aten::asinh"),
             "branch on activations": (Thresholded, networks.scripted, "reads the numbers of activations")}
# Rounded activations: a sum that rounds to another last digit may move one by a step, so answers are not the same to
# the last digit. name: (network, bits)
ROUNDED = {f"{network} with activations of {bits} bits": (network, bits)
           for network, bits in (("inverted residual scripted", 8), ("token transformer traced", 16),
                                 ("inverted residual scripted", 4))}
# Of these ONNX Runtime computes every layer and sum with integers; so many nodes of each kernel. name: (bits, settings)
INTEGER = {"residual block scripted with integers of 8 bits": (8, ["allocate.budget.average_bits=8"]),
           "residual block scripted with weights of 4 and 2 bits": (8, ["allocate.bits=[2,4]", "quantizer.grid=zero"]),
           "residual block scripted with activations of 4 bits": (4, ["allocate.bits=[4]"])}
KERNELS = {"QLinearConv": 3, "QLinearAdd": 1, "QGemm": 2}
IN_FLOAT = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "Add", "Sum", "Relu"}
ROUNDED |= {name: ("residual block scripted", bits) for name, (bits, settings) in INTEGER.items()}
NETWORKS |= {name: NETWORKS[network] for name, (network, bits) in ROUNDED.items()}


def fail(text):
    print("FAILED:", text)
    sys.exit(1)


def check_kernels(runtime, model):
    """What ONNX Runtime makes of the graph has the integer kernels, and no layer in float."""
    script = os.path.join(os.path.dirname(runtime), "onnx_kernels.js")
    answer = subprocess.run(["node", script, model], capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        fail(answer.stderr + answer.stdout)
    kernels = json.loads(answer.stdout)
    print("kernels:", kernels)
    if {name: kernels.get(name, 0) for name in KERNELS} != KERNELS or IN_FLOAT & kernels.keys():
        fail(f"expected {KERNELS} and none of {sorted(IN_FLOAT)}, ONNX Runtime runs {kernels}")


def write(folder, name):
    make, save, refusal = NETWORKS[name]
    torch.manual_seed(3)
    model = make()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) or isinstance(module, nn.BatchNorm1d):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    model.eval()
    images = torch.randn(2 * IMAGES, 1, 8, 8)
    with torch.no_grad():
        labels = model(images).argmax(1).numpy().astype("i8")
    for split, part in (("train", slice(0, IMAGES)), ("test", slice(IMAGES, None))):
        np.save(f"{folder}/{split}-images.npy", images[part].numpy())
        np.save(f"{folder}/{split}-labels.npy", labels[part])
    save(model).save(f"{folder}/model.pt")
    with open(f"{folder}/recipe.yaml", "w", encoding="utf-8") as recipe:
        recipe.write("bitplan: 1\nname: network\nmodel: {file: model.pt}\n"
                     "data: {name: npy, train_images: train-images.npy, train_labels: train-labels.npy,\n"
                     "       test_images: test-images.npy, test_labels: test-labels.npy, calibration: 40}\n"
                     "allocate: {budget: {average_bits: 4.0}}\n")
    return model, images[IMAGES:], refusal


def main():
    if sys.argv[1:] == ["--list"]:
        print("\n".join(NETWORKS))
        return
    program, runtime, name = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), sys.argv[3]
    if not shutil.which("node"):
        print("skipped: node is missing")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        model, images, refusal = write(folder, name)
        rounded = [f"allocate.activation_bits=[{ROUNDED[name][1]}]"] if name in ROUNDED else []
        if name in INTEGER:
            rounded += ["quantizer.activation_sums=rounded", *INTEGER[name][1]]
        settings = [word for setting in SETTINGS + rounded for word in ("--set", setting)]
        run = subprocess.run([program, "run", "recipe.yaml", "--data", ".", "--out", "out", "--quiet", *settings],
                             cwd=folder, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            fail(f"run: {run.stderr}")
        export = subprocess.run([program, "export", "recipe.yaml", "--out", "out", "--to", "onnx", "--json"],
                                cwd=folder, capture_output=True, text=True, check=False)
        if refusal is not None:
            lines = export.stderr.strip().splitlines()
            if export.returncode != 65 or len(lines) != 1 or refusal not in lines[0]:
                fail(f"expected a refusal (65) that says '{refusal}', got {export.returncode}: {export.stderr}")
            if os.path.exists(f"{folder}/out/quantized.onnx"):
                fail("a refused export left a file")
            print("refused:", lines[0])
            return
        if export.returncode != 0:
            fail(f"export: {export.stderr}")
        network = torch.jit.load(f"{folder}/out/quantized.pt").eval()
        with torch.no_grad():
            expected = network(images)
        images.numpy().tofile(f"{folder}/inputs.bin")
        expected.numpy().tofile(f"{folder}/expected.bin")
        # Batches of another size than any that the export has seen, and a last one that is smaller.
        answer = subprocess.run(["node", runtime, f"{folder}/out/quantized.onnx", f"{folder}/inputs.bin",
                                 f"{folder}/expected.bin",
                                 "1,8,8", str(expected.shape[1]), "float32",
                                 "37"], capture_output=True, text=True, check=False)
        if answer.returncode == 77:
            print(answer.stdout.strip())
            sys.exit(77)
        if answer.returncode != 0:
            fail(answer.stderr + answer.stdout)
        if name in INTEGER:
            check_kernels(runtime, f"{folder}/out/quantized.onnx")
        report = json.loads(answer.stdout)
        print(f"{name}: {report}")
        tolerance, share = 1e-4, 1.0
        if name in ROUNDED:
            tolerance, share = (0.2, 0.9) if ROUNDED[name][1] < 8 else (0.05, 0.97)
        if report["largest"] is None or not report["largest"] < tolerance:
            at, culprit = report["worst"], ""
            for operator, count in (model.columns(images[:2]).items() if isinstance(model, SideBySide) else ()):
                culprit = culprit or (operator if at < count else "")
                at -= count
            fail(f"answers differ by {report['largest']}, the most at output {report['worst']} ({culprit})")
        if not isinstance(model, SideBySide) and report["equal"] < share * report["images"]:
            fail("another class for some images")


if __name__ == "__main__":
    main()
