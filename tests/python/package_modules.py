"""What modules may be, what plan.apply refuses, and what files hold."""
import builtins
import struct
import sys
import types
import unittest
import warnings
from pathlib import Path
from unittest import mock

import package_support as support
from package_support import Case, Cnn, F, Mlp, bitplan, nn, np, state, table, torch, trained

from bitplan import models

ROOT = Path(__file__).resolve().parents[2]


class Head(Mlp):
    """An Mlp whose logits go through a function of the test."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def forward(self, x, *unused):  # which cannot be scripted
        return self.change(super().forward(x))


class Tied(nn.Module):
    """A weight and a bias under two names each, used twice, and a layer that training has left alone."""

    def __init__(self):
        super().__init__()
        self.first, self.between = nn.Linear(10, 10), nn.Linear(10, 10)
        self.second, self.head = nn.Linear(10, 10), nn.Linear(10, 4)
        self.second.weight, self.second.bias = self.first.weight, self.first.bias
        self.between.requires_grad_(False)

    def forward(self, x):
        x = F.relu(self.between(F.relu(self.first(x))))
        return self.head(torch.tanh(self.second(x)))


class Modules(Case):
    def graph(self, module, x=None):
        x = torch.randn(12, 10) if x is None else x
        copied = models.evaluation_copy(module)
        models.check_answers(models.answers(copied, x), len(x))
        return models.torchscript(copied, x)

    def test_what_is_scripted_and_what_is_traced(self):
        self.assertIsInstance(self.graph(Mlp()), torch.jit.RecursiveScriptModule)
        self.assertIsInstance(self.graph(Head(lambda y: y * 2)), torch.jit.TopLevelTracedModule)
        self.assertIsInstance(self.graph(torch.jit.script(Mlp())), torch.jit.ScriptModule)
        self.assertEqual(models.unwrap(nn.DataParallel(nn.DataParallel(Mlp()))).__class__, Mlp)

    def test_a_trace_that_answers_otherwise_is_refused(self):
        for change in (lambda y: y if len(y) > 5 else -y, lambda y: y * float(y.abs().mean())):
            with self.refused(65, "scripted:", "traced:", "answers otherwise on a batch of"):
                self.graph(Head(change))
        with self.refused(65, "traced: it fails on a batch of 12"):
            self.graph(Head(lambda y: y + torch.ones(int(y.shape[0]), 1)))
        with self.refused(65, "asked again", "answers_may_vary"):
            self.graph(Head(lambda y: F.dropout(y, 0.5)))

    def test_answers_that_are_no_logits(self):
        for change, words in ((lambda y: {"logits": y}, ["dictionary (logits)", "output['logits']"]),
                              (lambda y: (y, y), ["tuple of 2", "output[0]"]), (lambda y: y.tolist(), ["list of 12"]),
                              (lambda y: y[:, :1], ["[12, 1]", "torch.zeros_like"]), (lambda y: y[:, 0], ["[12]"]),
                              (lambda y: y[:, :, None], ["[12, 4, 1]"]), (lambda y: y.argmax(1)[:, None] + y.long(),
                                                                         ["torch.int64"])):
            with self.refused(65, "the module returns", *words):
                self.graph(Head(change))

    def test_what_is_no_trained_module(self):
        warnings.simplefilter("ignore")  # lazy modules are new, says torch
        for module, code, words in ((Mlp, 64, ["the class Mlp"]), (len, 64, ["builtin_function"]), (None, 64, ["None"]),
                                    (nn.LazyLinear(3), 65, ["parameter weight has no shape"])):
            with self.refused(code, *words):
                models.evaluation_copy(module)
        normed = nn.utils.weight_norm(nn.Linear(10, 4))
        normed(torch.randn(2, 10))
        with self.refused(65, "remove_weight_norm"):
            models.evaluation_copy(normed)

    def test_the_module_is_left_alone(self):
        module = Cnn().half()
        module.bn1.eval()
        modes, before = [part.training for part in module.modules()], state(module)
        self.graph(module, torch.randn(5, 1, 8, 8))
        self.assertEqual([part.training for part in module.modules()], modes)
        self.same_state(module, before)

    def test_tied_and_frozen_weights_and_modules_that_do_not_fit(self):
        train, test = table(400, 1), table(200, 2)
        module = trained(Tied, train, epochs=3)
        plan = self.plan(nn.DataParallel(module), train, test, average_bits=3)
        expected = torch.jit.load(str(plan.folder / "out/quantized.pt")).state_dict()
        plan.apply(module)
        self.same_state(module, expected)
        self.assertIs(module.second.weight, module.first.weight)
        loose = Tied()
        loose.second = nn.Linear(10, 10)
        self.same_state(plan.apply(loose), expected)
        self.assertFalse(module.between.weight.requires_grad)
        self.assertTrue(module.first.weight.requires_grad)

        before = state(module)
        wider, named, extra, half = Tied(), Tied(), Tied(), Tied().half()
        wider.head = nn.Linear(10, 5)
        named.top = named.head
        del named.head
        extra.more = nn.Linear(2, 2)
        for other, words in ((wider, ["head.", "[4", "[5"]), (named, ["has no head.bias, head.weight"]), (extra, [
                "knows no more.bias, more.weight"]), (half, ["torch.float16", "module.float()"]),
                (Mlp(), ["has no", "and 3 more"])):
            was = state(other)
            with self.refused(65, *words):
                plan.apply(other)
            self.same_state(other, was)
        with self.refused(64, "torch.nn.Module is wanted"):
            plan.apply(module.state_dict())
        self.same_state(module, before)

        self.check_frame(plan)
        self.check_files(plan)

    def check_frame(self, plan):
        """to_frame gives pandas a row for every layer; without pandas it says so."""
        with mock.patch.dict(sys.modules, {"pandas": types.SimpleNamespace(DataFrame=list)}):
            frame = plan.to_frame()
        self.assertEqual([row["name"] for row in frame], [layer.name for layer in plan.layers])
        self.assertEqual(frame[0]["bits"], plan.layers[0].bits)
        real = builtins.__import__

        def without(name, *rest, **more):
            if name == "pandas":
                raise ImportError(name)
            return real(name, *rest, **more)

        with mock.patch.object(builtins, "__import__", without), self.refused(66, "pip install pandas"):
            plan.to_frame()

    def check_files(self, plan):
        """The reader of the package is that of the docs; damaged files are errors."""
        page = (ROOT / "docs/formats.md").read_text(encoding="utf-8")
        names = {}
        exec(page.split("```python\n")[1].split("```")[0], names)
        for file in (plan.file, plan.save(self.folder / "saved.safetensors")):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                ours, theirs = bitplan.packed.read(file), names["read_quantized"](file)
            self.assertEqual(ours.plan, theirs["plan"])
            tensors = {**theirs["weights"], **theirs["others"]}
            self.assertEqual(set(ours.tensors()), set(tensors))
            for name, value in ours.tensors().items():
                self.assertEqual(value.dtype, tensors[name].dtype)
                self.assertTrue(np.array_equal(value, tensors[name]), name)
        data, damaged = plan.file.read_bytes(), self.folder / "damaged.safetensors"
        for cut in [*range(0, 24), *range(24, len(data), 97)]:
            damaged.write_bytes(data[:cut])
            with self.refused(65, "damaged.safetensors"):
                bitplan.load_plan(damaged)
        body = 8 + struct.unpack_from("<Q", data)[0]
        for at in [*range(0, body, 53), *range(body, len(data), 29)]:
            damaged.write_bytes(data[:at] + bytes([data[at] ^ 16]) + data[at + 1:])
            if at >= body:
                with self.refused(65, "SHA-256"):
                    bitplan.packed.read(damaged)
                continue
            try:
                same = bitplan.packed.read(damaged)  # what was changed is a blank, or a name that nobody reads
                self.assertEqual(same.plan, ours.plan)
            except bitplan.Error as error:
                self.assertEqual(error.code, 65)
        for content in (b"", b"\0" * 8, struct.pack("<Q", 2) + b"{}", struct.pack("<Q", 2) + b"[]", b"PK" * 20):
            damaged.write_bytes(content)
            with self.refused(65):
                bitplan.load_plan(damaged)
        damaged.write_bytes(bitplan.packed.with_metadata(plan.file, "version", "2"))
        with self.refused(65, "version is 2"):
            bitplan.load_plan(damaged)
        with self.refused(66, "missing.safetensors"):
            bitplan.load_plan(self.folder / "missing.safetensors")
        with self.refused(66, "no plan in this folder"):
            bitplan.load_plan(self.folder)
        with self.refused(65, "holds codes, but no plan"):
            bitplan.load_plan(plan.folder / "out/codes.safetensors")
        with self.refused(74, "cannot be written"):
            plan.save(self.folder / "no/such/folder.safetensors")


if __name__ == "__main__":
    support.main()
