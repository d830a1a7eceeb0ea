"""model.weights: what torch.save writes of a network, laid over its script and over a built-in architecture.

    weights_files.py PROGRAM
"""
import json
import re
import subprocess
import unittest

import package_support as support
from package_support import Case, Cnn, np, pictures, torch, trained

RECIPE = """bitplan: 1
name: weights
model: {model}
data: {{name: npy, train_images: x.npy, train_labels: y.npy, test_images: x.npy, test_labels: y.npy, calibration: 60}}
posterior: {{samples: 64}}
sensitivity: {{samples: 64}}
quantizer: {{rounding: nearest, batch_norm: "off"}}
allocate: {{budget: {{average_bits: 3}}, draws: 0}}
"""


class WeightsFiles(Case):
    def setUp(self):
        super().setUp()
        x, y = pictures(240, 1)
        np.save(self.folder / "x.npy", x.numpy())
        np.save(self.folder / "y.npy", y.numpy())
        self.network = trained(Cnn, (x, y), 2).eval()
        torch.jit.script(self.network).save(str(self.folder / "trained.pt"))
        torch.manual_seed(9)
        torch.jit.script(Cnn().eval()).save(str(self.folder / "fresh.pt"))

    def run_recipe(self, model, name):
        recipe = self.folder / "recipe.yaml"
        recipe.write_text(RECIPE.format(model=model))
        return subprocess.run([support.PROGRAM, "run", str(recipe), "--out", str(self.folder / name), "--json", "--quiet",
                               "--threads", "1"], capture_output=True, text=True)

    def figures(self, model, name):
        done = self.run_recipe(model, name)
        self.assertEqual(done.returncode, 0, done.stderr)
        result = json.loads(done.stdout)
        return [layer["bits"] for layer in result["layers"]], result["verified"]["float"], result["verified"]["quantized"]

    def test_what_torch_saves_of_a_network(self):
        state = self.network.state_dict()
        expected = self.figures("{file: trained.pt}", "whole")
        fresh = self.figures("{file: fresh.pt}", "fresh")
        self.assertNotEqual(expected, fresh)
        wrapped = {"module." + name: value for name, value in state.items()}
        for name, saved in (("state", state), ("wrapped", wrapped), ("double", self.network.double().state_dict()),
                            ("checkpoint", {"epoch": 2, "best": torch.tensor(0.5), "seed": 2 ** 80, "optimizer": {"lr": [1e-3]},
                                            "state_dict": state})):
            torch.save(saved, self.folder / (name + ".pth"))
            self.assertEqual(self.figures(f"{{file: fresh.pt, weights: {name}.pth}}", name), expected, name)

    def test_an_architecture_with_weights_is_not_trained(self):
        torch.manual_seed(4)
        x = torch.rand(80, 1, 28, 28)
        np.save(self.folder / "x.npy", x.numpy())
        np.save(self.folder / "y.npy", np.arange(80) % 10)
        shapes = {"conv1": (6, 1, 5, 5), "conv2": (16, 6, 5, 5), "fc1": (120, 400), "fc2": (84, 120), "fc3": (10, 84)}
        state = {}
        for layer, shape in shapes.items():
            state[layer + ".weight"] = 0.2 * torch.randn(shape)
            state[layer + ".bias"] = 0.1 * torch.randn(shape[0])
        torch.save(state, self.folder / "lenet.pth")
        done = self.run_recipe("{architecture: lenet5, weights: lenet.pth}", "lenet")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout)["model"]["name"], "lenet5")
        self.assertEqual(json.loads(done.stdout)["model"]["weights_file"], "lenet.pth")
        plan = (self.folder / "lenet" / "plan.yaml").read_text()
        self.assertFalse(re.search("split-off", plan))
        torch.save({**state, "fc4.bias": torch.ones(2)}, self.folder / "lenet.pth")
        done = self.run_recipe("{architecture: lenet5, weights: lenet.pth}", "lenet")
        self.assertEqual(done.returncode, 65)
        self.assertIn("'fc4.bias', which the model has not (nearest: 'fc", done.stderr)

    def test_files_that_are_no_state_dict(self):
        torch.save(self.network, self.folder / "object.pth")
        torch.save([1, 2], self.folder / "list.pth")
        torch.save({"epoch": 3}, self.folder / "none.pth")
        torch.save(self.network.state_dict(), self.folder / "old.pth", _use_new_zipfile_serialization=False)
        for name, words in (("object.pth", "an object of Python (package_support Cnn)"), ("list.pth", "no dictionary"),
                            ("none.pth", "no tensors, neither itself nor under state_dict"), ("old.pth", "before 1.6"), ("trained.pt", "TorchScript program")):
            done = self.run_recipe(f"{{file: fresh.pt, weights: {name}}}", "bad")
            self.assertEqual(done.returncode, 65, name)
            self.assertIn(words, done.stderr)
            self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
        torch.onnx.export(self.network, torch.zeros(1, 1, 8, 8), str(self.folder / "net.onnx"), opset_version=13)
        torch.save(self.network.state_dict(), self.folder / "state.pth")
        done = self.run_recipe("{file: net.onnx, weights: state.pth}", "bad")
        self.assertEqual(done.returncode, 64, done.stderr)
        self.assertIn("cannot lie over the ONNX file net.onnx", done.stderr)


if __name__ == "__main__":
    support.main()
