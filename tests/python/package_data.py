"""What data may be, and what is refused before the program is asked."""
import unittest
import warnings

import package_support as support
from package_support import Case, F, Mlp, bitplan, nn, np, table, torch
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset, WeightedRandomSampler

from bitplan import data, models, yaml


class Embedded(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens, self.fc = nn.Embedding(256, 8), nn.Linear(8, 4)

    def forward(self, x):
        return self.fc(self.tokens(x.long() if x.dtype == torch.uint8 else x).mean(1))


class Scaled(nn.Module):
    """Takes bytes and scales them itself."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(12, 4)

    def forward(self, x):
        return self.fc(x.float() / 100 - 1)


class Stream(IterableDataset):
    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


class Halved(DataLoader):
    """A loader that changes its batches."""

    def __iter__(self):
        return ((x / 2, y) for x, y in super(Halved, self).__iter__())


class Data(Case):
    def setUp(self):
        super().setUp()
        torch.manual_seed(5)
        self.x, self.y = table(100, 1)
        self.files = [self.folder / "images.npy", self.folder / "labels.npy"]

    def written(self, source, module=None, limit=None, name="train"):
        """(inputs, labels) as numpy reads them back."""
        module = models.evaluation_copy(module or Mlp())
        first = next(data.batches(source, name, limit, 1))
        feed = data.feed(module, first[0], name, models.check_answers)
        count, _ = data.write(data.batches(source, name, limit, 1), feed, name, self.files)
        inputs, labels = (np.load(file) for file in self.files)
        self.assertEqual((count, count), (len(inputs), len(labels)))
        self.assertEqual(labels.dtype, np.int64)
        return inputs, labels

    def test_all_forms_give_the_same_files(self):
        pairs, x, y = TensorDataset(self.x, self.y), self.x, self.y
        forms = {
            "tensors": (x, y), "list of tensors": [x, y], "arrays": (x.numpy(), y.numpy()),
            "doubles": (x.double(), y.int()), "labels [N, 1]": (x, y[:, None]), "labels of floats": (x, y.float()),
            "labels one-hot": (x, F.one_hot(y, 4)), "labels one-hot of floats": (x, F.one_hot(y, 4).float()),
            "labels in a list": (x, y.tolist()), "unsigned labels": (x.numpy(), y.numpy().astype("u2")),
            "big-endian": (x.numpy().astype(">f4"), y.numpy().astype(">i4")), "data set": pairs,
            "part of a data set": Subset(pairs, range(100)), "loader": DataLoader(pairs, batch_size=7),
            "shuffled loader without its last batch": DataLoader(pairs, batch_size=7, shuffle=True, drop_last=True),
            "list of batches": list(zip(x.split(9), y.split(9))), "two batches": list(zip(x.split(50), y.split(50))),
            "batches of lists": [list(batch) for batch in zip(x.split(9), y.split(9))],
            "stream": Stream(list(zip(x, y))), "loader of a stream": DataLoader(Stream(list(zip(x, y))), batch_size=8),
            "gradients": (x.clone().requires_grad_(), y), "column order": (np.asfortranarray(x.numpy()), y.numpy()),
        }
        for name, source in forms.items():
            with self.subTest(name):
                inputs, labels = self.written(source)
                self.assertEqual(inputs.dtype, np.float32)
                self.assertTrue(np.array_equal(inputs, x.numpy()))
                self.assertTrue(np.array_equal(labels, y.numpy()))

    def test_a_loader_that_chooses_or_changes_is_left_to_do_so(self):
        sampler = WeightedRandomSampler((self.y == 2).double(), 30)
        _, labels = self.written(DataLoader(TensorDataset(self.x, self.y), batch_size=8, sampler=sampler))
        self.assertEqual(labels.tolist(), [2] * 30)
        inputs, _ = self.written(Halved(TensorDataset(self.x, self.y), batch_size=8))
        self.assertTrue(np.array_equal(inputs, self.x.numpy() / 2))

    def test_a_limit_draws_from_data_sets_and_takes_the_first_of_iterables(self):
        order = np.argsort(self.y.numpy(), kind="stable")  # sorted by class, as folders of images are
        x, y = self.x[order], self.y[order]
        for source in ((x, y), TensorDataset(x, y), DataLoader(TensorDataset(x, y), batch_size=8)):
            inputs, labels = self.written(source, limit=40)
            self.assertEqual(len(labels), 40)
            self.assertEqual(set(labels), {0, 1, 2, 3})
            again, _ = self.written(source, limit=40)
            self.assertTrue(np.array_equal(inputs, again))
        inputs, _ = self.written(list(zip(x.split(16), y.split(16))), limit=40)
        self.assertTrue(np.array_equal(inputs, x[:40].numpy()))

    def test_a_long_stream_is_read_only_as_far_as_it_is_used(self):
        read = []

        def stream():
            while True:
                read.append(1)
                yield self.x, self.y

        sizes = [len(labels) for _, labels in data.batches(stream(), "train", 250, 1)]
        self.assertEqual(sizes, [100, 100, 50])
        self.assertEqual(len(read), 3)

    def test_bytes_that_the_module_does_not_take_are_divided_by_255(self):
        x = torch.randint(0, 256, (100, 10), dtype=torch.uint8)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            inputs, _ = self.written((x, self.y))
        self.assertIn("divided by 255", str(seen[0].message))
        self.assertEqual(inputs.dtype, np.uint8)

    def test_bytes_and_integers_that_the_module_takes_reach_it_as_they_are(self):
        x = torch.randint(0, 256, (100, 12))
        for kind in (torch.uint8, torch.int16, torch.int64):
            inputs, _ = self.written((x.to(kind), self.y), Scaled())
            self.assertEqual(inputs.dtype, np.float32)
            self.assertTrue(np.array_equal(inputs, x.numpy()))
            if kind != torch.int16:
                inputs, _ = self.written((x.to(kind), self.y), Embedded())
                self.assertEqual(inputs.dtype, np.int64)
                self.assertTrue(np.array_equal(inputs, x.numpy()))
        inputs, _ = self.written((x.to(torch.int16)[:, :10], self.y))
        self.assertEqual(inputs.dtype, np.float32)

    def test_labels_that_are_no_class_numbers(self):
        too_high, negative = self.y.clone(), self.y.clone()
        too_high[57], negative[3] = 4, -100
        mixed = F.one_hot(self.y, 4) * 0.9 + 0.025
        cases = [(too_high, ["label 4 of sample 57", "0..3"]), (negative, ["label -100 of sample 3"]),
                 (mixed, ["not one-hot"]), (F.one_hot(self.y, 6), ["[100, 6]", "4 outputs"]),
                 (self.y + 0.5, ["no whole numbers"]), (self.y.float() * float("nan"), ["no whole numbers"]),
                 (self.y[:, None, None], ["shape [100, 1, 1]"])]
        for labels, words in cases:
            with self.refused(65, "train", *words):
                self.written((self.x, labels))
        with self.refused(65, "label 4 of sample 57"):  # in a later batch
            self.written(list(zip(self.x.split(30), too_high.split(30))))

    def test_inputs_that_cannot_be_used(self):
        wrong = self.x.clone()
        wrong[71, 3] = float("nan")
        ragged = [(self.x, self.y), (self.x[:, :5], self.y)]
        with self.refused(65, "sample 71", "NaN"):
            self.written(list(zip(wrong.split(30), self.y.split(30))))
        with self.refused(65, "sample 100", "[10]", "[5]"):
            self.written(ragged)
        with self.refused(65, "100 inputs", "99 labels"):
            self.written((self.x, self.y[1:]))
        with self.refused(65, "shape [100]"):
            self.written((self.x[:, 0], self.y))
        with self.refused(65, "[100, 4]", "mat1"):
            self.written((self.x[:, :4], self.y))
        with self.refused(65, "dict", "batch['image']"):
            self.written([{"image": self.x, "label": self.y}])
        with self.refused(65, "tuple of 3"):
            self.written([(self.x, self.y, self.y)])
        with self.refused(65, "several inputs"):
            self.written([((self.x, self.x), self.y)])
        self.assertEqual([file.name for file in self.folder.iterdir()], [], "no part of a file is left")

    def test_data_that_are_none(self):
        module, program = Mlp(), support.PROGRAM
        for source in ("train.npy", 7, {"x": self.x}):
            with self.refused(64, "train is a", "DataLoader"):
                bitplan.plan(module, source, program=program)
        with self.refused(64, "train is None"):
            bitplan.plan(module, None, program=program)
        for source in ([], iter(()), (self.x[:0], self.y[:0])):
            with self.refused(65, "train holds no samples"):
                bitplan.plan(module, source, program=program)
        with self.refused(65, "test holds no samples"):
            bitplan.plan(module, (self.x, self.y), [], program=program)

    def test_inputs_alone_in_every_form(self):
        x = self.x
        module = models.evaluation_copy(Mlp())
        forms = {"tensor": x, "array": x.numpy(), "data set": TensorDataset(x), "batches": x.split(9),
                 "loader": DataLoader(TensorDataset(x), batch_size=7), "stream": Stream(list(x)),
                 "generator": (part for part in x.split(30)), "limit": x}
        for name, source in forms.items():
            with self.subTest(name):
                batches = list(data.batches(source, "train", 40 if name == "limit" else None, 1))
                feed = data.feed(module, batches[0][0], "train", models.check_answers)
                count, labelled = data.write(iter(batches), feed, "train", self.files)
                self.assertFalse(labelled)
                self.assertFalse(self.files[1].exists())
                self.assertEqual(count, 40 if name == "limit" else 100)
                if name != "limit":
                    self.assertTrue(np.array_equal(np.load(self.files[0]), x.numpy()))
        with self.refused(65, "samples before 50 have labels", "lack"):
            self.written([(x[:50], self.y[:50]), x[50:75], x[75:]])
        self.assertFalse(self.files[1].exists())

    def test_an_error_of_the_loader_is_told(self):
        def broken():
            yield self.x, self.y
            raise OSError("the disk is gone")

        with self.refused(65, "train", "the disk is gone"):
            bitplan.plan(Mlp(), broken(), program=support.PROGRAM)


class Yaml(unittest.TestCase):
    def test_what_the_program_writes(self):
        text = ('a: 1\nb: # a comment\n  - {name: fc, "2": [1, 2.5, 1e-09, x y], empty: {}, none: []}\n'
                '  - name: "a: \\"b\\" \\\\ \\x1f #"\n    left: true\nc: {d: 1.13.0,\n    e: off, f: -0.5}\n')
        self.assertEqual(yaml.read(text, "t"), {
            "a": 1, "b": [{"name": "fc", "2": [1, 2.5, 1e-9, "x y"], "empty": {}, "none": []},
                          {"name": 'a: "b" \\ \x1f #', "left": True}], "c": {"d": "1.13.0", "e": "off", "f": -0.5}})

    def test_what_is_not_understood_is_an_error_with_its_line(self):
        for text in ("a: 1\n b: 2\n", "a: [1\n", "a: {b 1}\n", 'a: "b\n', "a: 1\na: 2\n", "a: &x 1\n", "a: |\n  b\n",
                     "x: " + "[" * 100_000):
            with self.assertRaisesRegex(bitplan.Error, r"^t:\d+: "):
                yaml.read(text, "t")


if __name__ == "__main__":
    support.main()
