"""Three networks, trained here, planned, and run again as the user's own modules."""
import json
import re
import subprocess
import sys
import unittest
from pathlib import Path
from xml.etree import ElementTree

import package_support as support
from package_support import (Case, Cnn, F, Mlp, Transformer, accuracy, bitplan, logits, nn, np, pictures, sentences,
                             state, table, torch, trained)
from torch.utils.data import DataLoader, TensorDataset

ROOT = Path(__file__).resolve().parents[2]


class Networks(Case):
    def check(self, make, module, test, plan):
        """The plan in the user's module is quantized.pt, and as good as the plan says."""
        stated, expected = plan.accuracy, torch.jit.load(str(plan.folder / "out/quantized.pt")).eval()
        float_accuracy, before = accuracy(module, test), state(module)
        self.assertAlmostEqual(plan.float_accuracy, float_accuracy, 5)
        self.assertGreater(float_accuracy, 0.85)
        self.assertGreater(stated, float_accuracy - 0.05)
        self.assertLessEqual(plan.drop.low, plan.drop.value)
        self.assertLessEqual(plan.drop.value, plan.drop.high)
        self.assertAlmostEqual(plan.drop.value, plan.float_accuracy - plan.accuracy, 5)
        self.assertIs(plan.apply(module), module)
        self.same_state(module, expected.state_dict())
        self.assertTrue(any(not torch.equal(value, before[name]) for name, value in state(module).items()))
        answers = logits(module, test[0])
        torch.testing.assert_close(answers, logits(expected, test[0]), rtol=1e-4, atol=1e-4)
        self.assertTrue(torch.equal(answers.argmax(1), logits(expected, test[0]).argmax(1)))
        self.assertAlmostEqual(accuracy(module, test), stated, 5)

        file = plan.save(self.folder / "plan.safetensors")
        loaded = bitplan.load_plan(file)
        self.assertEqual(loaded.layers, plan.layers)
        self.assertEqual(loaded.record, plan.record)
        self.assertEqual((loaded.accuracy, loaded.drop, loaded.notes), (plan.accuracy, plan.drop, plan.notes))
        fresh = loaded.apply(make())
        self.same_state(fresh, expected.state_dict())

        planned = dict(module.named_parameters())
        self.assertEqual([layer.shape for layer in plan.layers],
                         [tuple(planned[layer.parameter].shape) for layer in bitplan.packed.read(file).layers])
        share = sum(layer.weights * layer.bits for layer in plan.layers) / sum(layer.weights for layer in plan.layers)
        self.assertAlmostEqual(plan.average_bits, share, 5)
        self.assertAlmostEqual(sum(layer.predicted_rise for layer in plan.layers), plan.predicted_rise, 5)
        for layer in bitplan.packed.read(file).layers:
            values = planned[layer.parameter].detach().numpy()
            along = [-1 if axis == layer.blocks[0].channel_dim else 1 for axis in range(values.ndim)]
            scales = layer.scales.reshape(along)
            self.assertTrue(np.array_equal(values, scales * (layer.codes + np.float32(layer.offset))))
            self.assertLessEqual(len(np.unique(layer.codes)), 2 ** layer.bits)

    def test_mlp_on_a_table_from_shuffled_loaders(self):
        train, test = table(800, 1), table(400, 2)
        module = trained(Mlp, train)
        module.eval()
        loader = DataLoader(TensorDataset(*train), batch_size=64, shuffle=True, drop_last=True)
        before, random = state(module), torch.get_rng_state()
        plan = self.plan(module, loader, DataLoader(TensorDataset(*test), batch_size=64), average_bits=4,
                         allocator="exact", folder=self.folder / "ein Ordner ä", settings={
                             "quantizer": {"output_correction": "fit"}})
        self.same_state(module, before)
        self.assertFalse(module.training)
        self.assertTrue(torch.equal(random, torch.get_rng_state()), "the user's random numbers were used")
        rows = np.load(plan.folder / "train-images.npy")
        self.assertTrue(np.array_equal(rows, train[0].numpy()), "the loader's data set is read to its end, in order")
        self.assertEqual(plan.record["allocator"]["name"], "exact")
        self.assertEqual(plan.record["quantizer"]["output_correction"], "fit")
        self.assertLessEqual(plan.average_bits, 4)
        biases = {name for name, value in before.items() if name.endswith("bias")}
        self.check(Mlp, module, test, plan)
        self.assertTrue(any(not torch.equal(state(module)[name], before[name]) for name in biases),
                        "corrected biases are applied")

        # The same folder again: a smaller budget is a plan of its own, and the first one stays what it was.
        first = bitplan.packed.read(plan.file).weights
        smaller = self.plan(module, loader, DataLoader(TensorDataset(*test), batch_size=64), bytes=600,
                            folder=plan.folder, settings={"quantizer.grid": "half"})
        self.assertLessEqual(smaller.stored_bytes, 600)
        self.assertEqual({layer.grid for layer in smaller.layers}, {"half"})
        expected = torch.jit.load(str(smaller.file.parent / "quantized.pt"))
        self.same_state(smaller.apply(Mlp()), expected.state_dict())
        self.assertNotEqual(smaller.file, plan.file)
        for name, value in bitplan.packed.read(plan.file).weights.items():
            self.assertTrue(np.array_equal(value, first[name]))
        newest = bitplan.load_plan(plan.folder, program=support.PROGRAM)
        self.assertEqual(newest.record, smaller.record)

    def test_the_smallest_plan_within_a_drop(self):
        train, test, calibration = table(800, 1), table(400, 2), table(900, 3)
        plan = self.plan(trained(Mlp, train), train, test, calibration=calibration, drop=8.0, smallest="bytes")
        bound = plan.drop_bound
        self.assertEqual((bound["at_most"], bound["smallest"], bound["images"]), (0.08, "bytes", 600))
        self.assertLessEqual(bound["upper95"], 0.08)
        self.assertIn("bytes", plan.record["budget"])
        self.assertLess(plan.average_bits, 8)
        self.assertIn("drop bound", str(plan))

    def test_cnn_with_batch_norms_in_training_mode_from_arrays(self):
        train, test = pictures(900, 1), pictures(400, 2)
        module = trained(Cnn, train)
        before = state(module)
        arrays = [(x.numpy().astype("f8"), np.eye(4)[y.numpy()]) for x, y in (train, test)]  # one-hot labels
        plan = self.plan(module, *arrays, average_bits=4, settings={"quantizer.batch_norm": "re-estimate"})
        self.same_state(module, before)
        self.assertTrue(all(part.training for part in module.modules()), "the module is still in training mode")
        self.check(Cnn, module, test, plan)
        self.assertTrue(all(part.training for part in module.modules()))
        for name in ("bn1.running_mean", "bn1.running_var", "bn2.running_mean", "bn2.running_var"):
            self.assertFalse(torch.equal(state(module)[name], before[name]), f"{name} is corrected")

        # Wrapped, in double precision, or as TorchScript: the same tensors.
        expected = state(module)
        self.same_state(plan.apply(torch.nn.DataParallel(Cnn())).module, expected)
        doubled = plan.apply(Cnn().double())
        self.same_state(doubled.float(), expected)
        scripted = plan.apply(torch.jit.script(Cnn()))
        self.same_state(scripted, expected)

        # What is drawn and exported.
        picture = plan._repr_html_()
        tree = ElementTree.fromstring(picture)
        self.assertEqual(len(tree.findall(".//{http://www.w3.org/2000/svg}rect")), 3)
        for word in ("conv1", "conv2", "fc", f"{plan.layers[0].bits} bits", f"{100 * plan.accuracy:.2f} %"):
            self.assertIn(word, picture)
            self.assertIn(word.replace(" bits", ""), str(plan))
        plan.export("torchscript", self.folder / "copy.pt")
        self.same_state(torch.jit.load(str(self.folder / "copy.pt")), expected)
        plan.export("json", self.folder / "copy.json")
        plan.export("packed", self.folder / "copy.safetensors")
        self.assertEqual(bitplan.load_plan(self.folder / "copy.safetensors").record, plan.record)
        with self.refused(64, "packed"):
            plan.export("onyx", self.folder / "copy.onyx")
        with self.refused(64, "folder of the run"):
            bitplan.load_plan(self.folder / "copy.safetensors").export("json", self.folder / "again.json")

        # The folder of a plan without a name lives as long as the plan.
        folder = plan.folder
        self.assertTrue(folder.is_dir())
        del plan
        self.assertFalse(folder.exists())

    def test_transformer_on_tokens_from_data_sets(self):
        train, test = sentences(900, 1), sentences(400, 2)
        module = trained(Transformer, train)
        plan = self.plan(module, TensorDataset(*train), TensorDataset(*test), average_bits=5,
                         settings={"allocate.pins": {"fc": 8, "encoder.layers.0.*": 5}})
        self.assertEqual(np.load(plan.folder / "train-images.npy").dtype, np.int64)
        self.assertEqual({layer.name: layer.bits for layer in plan.layers}["fc"], 8)
        self.assertEqual([layer.kind for layer in plan.layers if layer.name == "tokens"], ["embedding"])
        self.check(Transformer, module, test, plan)

    def test_the_example_of_the_docs(self):
        example = ROOT / "python/example.py"
        run = subprocess.run([sys.executable, example, "--program", support.PROGRAM, "--json", self.folder / "e.json"],
                             capture_output=True, text=True, check=False)
        self.assertEqual(run.returncode, 0, run.stderr)
        figures = json.loads((self.folder / "e.json").read_text())["result"]
        self.assertAlmostEqual(figures["module_accuracy"], figures["verified"]["quantized"]["accuracy"], 5)
        self.assertGreater(figures["module_accuracy"], 0.85)
        page, printed = (ROOT / "docs/python.md").read_text(encoding="utf-8"), run.stdout.splitlines()
        shown = page.split("prints:")[1].split("```")[1].splitlines()[1:]
        words = [[line.split("  ")[0] for line in lines if not line.startswith("note")] for lines in (printed, shown)]
        self.assertEqual(*[[re.sub(r"[\d.,-]+", "#", word) for word in column] for column in words])

    def test_inputs_alone_are_enough_for_a_plan(self):
        train, test = table(900, 1), table(400, 2)
        module = trained(Mlp, train)
        plan = self.plan(module, train[0], test, average_bits=3)
        self.assertLessEqual(plan.average_bits, 3)
        self.assertGreater(plan.accuracy, 0.8)
        again = self.plan(module, train[0], average_bits=3)
        self.assertIsNone(again.accuracy)
        alike = self.plan(module, train[0], test[0], average_bits=3)
        self.assertIsNone(alike.accuracy, "without labels there is none")
        self.assertIn("agreement", str(alike))
        self.assertEqual([layer.bits for layer in again.layers], [layer.bits for layer in plan.layers])

    def test_another_task_has_its_own_figures(self):
        rng = np.random.default_rng(3)
        x = torch.from_numpy(rng.normal(size=(900, 6)).astype("f4"))
        y = torch.stack([x[:, 0] * x[:, 1], x[:, 2].abs()], 1) + 0.05 * torch.randn(900, 2)
        torch.manual_seed(1)
        net = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 2))
        optimizer = torch.optim.Adam(net.parameters(), 1e-2)
        for _ in range(200):
            optimizer.zero_grad()
            F.mse_loss(net(x[:600]), y[:600]).backward()
            optimizer.step()
        plan = self.plan(net, (x[:600], y[:600]), (x[600:], y[600:]), task="regression", average_bits=4)
        residual = ((net(x[600:]) - y[600:]) ** 2).sum() / ((y[600:] - y[600:].mean(0)) ** 2).sum()
        self.assertAlmostEqual(plan.figures["float"]["r2"], 1 - float(residual.detach()), places=4)
        self.assertAlmostEqual(plan.drop.value, plan.figures["float"]["r2"] - plan.figures["quantized"]["r2"], places=5)
        self.assertIsNone(plan.accuracy)
        with self.refused(65, "train has no labels", "regression"):
            self.plan(net, x[:600], task="regression")
        with self.refused(64, "regresion"):
            self.plan(net, (x[:600], y[:600]), task="regresion")

    def test_positions_of_a_picture_have_classes(self):
        train, test = pictures(500, 1), pictures(200, 2)
        masks = [(x[:, 0] > 1).long() for x, _ in (train, test)]
        torch.manual_seed(1)
        net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))
        optimizer = torch.optim.Adam(net.parameters(), 2e-2)
        for _ in range(60):
            optimizer.zero_grad()
            F.cross_entropy(net(train[0]), masks[0]).backward()
            optimizer.step()
        plan = self.plan(net, (train[0], masks[0]), (test[0], masks[1]), task="segmentation", average_bits=4)
        right = (net(test[0]).argmax(1) == masks[1]).double().mean()
        self.assertAlmostEqual(plan.float_accuracy, float(right), places=5)
        self.assertGreater(plan.figures["quantized"]["accuracy"], 0.9)

    def test_without_test_data_no_accuracy_is_stated(self):
        train = table(300, 1)
        module = trained(Mlp, train, epochs=2)
        plan = self.plan(module, [(x, y) for x, y in zip(train[0].split(40), train[1].split(40))])
        self.assertIsNone(plan.accuracy)
        self.assertIsNone(plan.float_accuracy)
        self.assertIsNone(plan.drop)
        self.assertNotIn("accuracy", str(plan))
        self.assertEqual(plan.record["verified"]["data"], "npy/calibration")
        self.assertEqual(plan.record["budget"], {"average_bits": 4.0})
        self.assertIsNone(bitplan.load_plan(plan.save(self.folder / "p.safetensors")).accuracy)


if __name__ == "__main__":
    support.main()
