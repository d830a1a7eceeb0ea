"""The program: found, refused, failing, interrupted; folders and settings."""
import contextlib
import io
import os
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path
from unittest import mock

import package_support as support
from package_support import Case, Mlp, bitplan, table, torch

from bitplan import planning, program, recipe

HERE = Path(__file__).resolve().parent
VERSION = 'if [ "$1" = --version ]; then echo "bitplan 0.1.0"; exit 0; fi\n'


class Program(Case):
    def setUp(self):
        super().setUp()
        self.data, self.module = table(120, 1), Mlp()
        environment = mock.patch.dict(os.environ)
        environment.start()
        self.addCleanup(environment.stop)
        os.environ.pop("BITPLAN", None)

    def run_with(self, script, **options):
        return bitplan.plan(self.module, self.data, program=self.script("fake", script), **options)

    def test_where_the_program_is_looked_for(self):
        real = support.PROGRAM
        elsewhere = self.folder / "ein Ordner mit ä" / "bitplan"
        elsewhere.parent.mkdir()
        elsewhere.symlink_to(real)
        self.assertEqual(program.find(real), real)
        self.assertEqual(program.find(elsewhere), str(elsewhere))
        self.assertEqual(program.find(os.path.relpath(elsewhere)), str(elsewhere))
        with mock.patch.object(program, "_in_checkout", lambda: None):
            os.environ["PATH"] = str(self.folder)
            with self.refused(66, "not found", "PATH", "BITPLAN", "program="):
                program.find()
            os.environ["PATH"] = f"{self.folder}:{elsewhere.parent}"
            self.assertEqual(program.find(), str(elsewhere))
            os.environ["BITPLAN"] = real
            self.assertEqual(program.find(), real)
            os.environ["BITPLAN"] = str(self.folder / "gone")
            with self.refused(66, "the environment variable BITPLAN", "gone"):
                program.find()
        with mock.patch.object(program, "_in_checkout", lambda: real):
            os.environ.update(BITPLAN="", PATH="")
            self.assertEqual(program.find(), real)

    def test_what_is_not_the_program(self):
        plain = self.folder / "plain"
        plain.write_text("no program")
        garbage = self.script("garbage", "")
        garbage.write_bytes(b"\x7fELF nothing")
        for name, code, words in ((self.folder / "none", 66, ["there is no program"]),
                                  (self.folder, 66, ["is the folder"]), (plain, 66, ["not executable"]),
                                  (garbage, 66, ["cannot be run"]),
                                  (self.script("hello", "echo hello"), 66, ["is not bitplan", "'hello'"]),
                                  (self.script("crash", "echo library missing >&2; exit 127"), 66,
                                   ["library missing", "exit code 127"]),
                                  (self.script("old", "echo bitplan 0.0.9"), 64, ["bitplan 0.0.9", "needs 0.1.0"])):
            with self.refused(code, *words):
                bitplan.plan(self.module, self.data, program=name)

    def test_errors_of_the_program_are_told_with_their_code(self):
        for options, code, words in (({"average_bits": 99}, 64, ["recipe.yaml", "average_bits"]),
                                     ({"bytes": 1}, 75, ["bytes"]), ({"seed": "x"}, 64, ["seed"]),
                                     ({"average_bits": 4, "bytes": 1}, 75, ["budget 1 bytes"]),
                                     ({"bytes": 10 ** 6, "bops": 1}, 75, ["budget 1 bit operations"]),
                                     ({"drop": 0.0}, 64, ["drop", "must be > 0"]),
                                     ({"drop": 1.0, "smallest": "weight"}, 64, ["smallest", "average_bits"]),
                                     ({"allocator": "best"}, 64, ["best"]), ({"seed": -1}, 64, ["seed"]),
                                     ({"settings": {"quantizer.colour": 1}}, 64, ["colour"]),
                                     ({"device": "abacus"}, 64, ["abacus"])):
            with self.refused(code, *words):
                self.plan(self.module, self.data, folder=self.folder / "run", **options)

    def test_a_program_that_dies_or_babbles(self):
        with self.refused(-9, "SIGKILL", "memory"):
            self.run_with(VERSION + "kill -9 $$", quiet=True)
        with self.refused(3, "exit code 3"):
            self.run_with(VERSION + "exit 3", quiet=True)
        with self.refused(70, "no JSON"):
            self.run_with(VERSION + "echo babble", quiet=True)

    def test_progress_is_passed_on(self):
        babble = VERSION + "echo 'stage: 3 images' >&2; echo 'warning: odd' >&2; echo 'bitplan: it failed' >&2; exit 65"
        for quiet, wanted in ((False, "stage: 3 images\nwarning: odd\n"), (True, "")):
            with contextlib.redirect_stderr(io.StringIO()) as seen, self.refused(65, "it failed"):
                self.run_with(babble, quiet=quiet)
            self.assertEqual(seen.getvalue(), wanted)
        with mock.patch.object(sys, "stderr", None), self.refused(65, "it failed"):
            self.run_with(babble)
        arguments = self.folder / "arguments"
        with self.refused(1):
            self.run_with(VERSION + f"echo \"$@\" > '{arguments}'; exit 1", quiet=True, threads=3, device="cpu")
        self.assertEqual(arguments.read_text(),
                         "run recipe.yaml --data . --out out --json --threads 3 --device cpu --quiet\n")

    def test_nothing_is_left_of_a_run_that_failed_in_a_temporary_folder(self):
        with mock.patch.dict(os.environ, {"TMPDIR": str(self.folder)}), mock.patch("tempfile.tempdir", None):
            with self.refused(3):
                self.run_with(VERSION + "exit 3", quiet=True)
        self.assertEqual([file.name for file in self.folder.iterdir()], ["fake"])

    def test_folders_that_cannot_be_used(self):
        file = self.folder / "file"
        file.write_text("mine")
        for folder in (file, file / "below", "/proc/bitplan"):
            with self.refused(74, "folder"):
                self.run_with(VERSION, folder=folder)
        with mock.patch.object(Path, "write_text", side_effect=PermissionError(13, "Permission denied")):
            with self.refused(74, "folder", "Permission denied"):
                bitplan.plan(self.module, self.data, program=support.PROGRAM, folder=self.folder / "read-only")
        foreign = self.folder / "foreign"
        foreign.mkdir()
        for name in ("recipe.yaml", "train-images.npy", "model.pt", "out"):
            (foreign / name).write_text("mine")
            with self.refused(64, name, "another folder"):
                self.run_with(VERSION, folder=foreign)
            self.assertEqual((foreign / name).read_text(), "mine")
            (foreign / name).unlink()
        full = self.folder / "full"
        full.mkdir()
        with mock.patch.object(planning.data, "write", side_effect=OSError(28, "No space left on device")):
            with self.refused(74, "No space left on device"):
                self.run_with(VERSION, folder=full)

    def test_a_folder_whose_data_were_refused_is_used_again(self):
        folder, (x, y) = self.folder / "run", self.data
        with self.refused(65, "label 4 of sample 5"):
            wrong = y.clone()
            wrong[5] = 4
            self.plan(self.module, (x, wrong), folder=folder)
        self.assertEqual(len(self.plan(self.module, (x, y), folder=folder).layers), 3)

    def test_settings(self):
        merged = recipe.merge({"a.b": 1, "c": None}, {"a.d": 2, "e": {"f": {"g": 3}}, "allocate.pins": {"x.y": 4}})
        self.assertEqual(merged, {"a": {"b": 1, "d": 2}, "e": {"f": {"g": 3}}, "allocate": {"pins": {"x.y": 4}}})
        self.assertEqual(recipe.merge({}, {"allocate": {"pins": {"x.y": 4}}}), {"allocate": {"pins": {"x.y": 4}}})
        self.assertIn('name: "Ä \\"b\\""\n', recipe.text({"name": 'Ä "b"'}))
        self.assertIn("bits: [2, 4]\n", recipe.text({"bits": torch.tensor([2, 4]).numpy()}))
        for settings, words in (({"data.name": "mnist"}, ["data.name", "twice"]), ({"seed": 1, "seed.x": 2}, ["seed"]),
                                ({"name": float("nan")}, ["twice"]),
                                ({"sensitivity.samples": float("inf")}, ["finite"]),
                                ({"posterior.samples": print}, ["builtin_function"]), ("a=b", ["is a dict"])):
            with self.refused(64, "settings", *words):
                self.run_with(VERSION, settings=settings)
        with self.refused(64, "allocate.budget.average_bits", "twice"):
            self.run_with(VERSION, average_bits=3, settings={"allocate.budget.average_bits": 4})

    def interrupted(self, folder, fake, ready):
        """Plans in a process of its own, interrupts it as Ctrl-C does once ready(), and returns what it printed."""
        code = ("import sys; sys.argv[1:] = ['x']; sys.path.insert(0, sys.path[0])\n"
                "import package_support as s\nimport bitplan\ns.torch.manual_seed(0)\n"
                f"try:\n    bitplan.plan(s.Mlp(), s.table(1500, 1), folder={str(folder)!r}, program={str(fake)!r}, "
                "threads=1, allocator='random-bits', settings={'allocate.random_bits.steps': 1000000})\n"
                "except KeyboardInterrupt:\n    print('stopped', flush=True)\n")
        child = subprocess.Popen([sys.executable, "-c", code], cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                 text=True)
        try:
            deadline = time.monotonic() + 120
            while not ready() and child.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            children = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
            self.assertEqual(len(children), 1)
            child.send_signal(signal.SIGINT)
            output, errors = child.communicate(timeout=90)
        finally:
            if child.poll() is None:
                child.kill()
                child.communicate()
        program = Path(f"/proc/{children[0]}")
        deadline = time.monotonic() + 10  # where nobody waits for orphans at once, its entry stays for a moment
        while program.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertFalse(program.exists(), "the program still runs")
        self.assertEqual(output, "stopped\n", errors)

    @unittest.skipUnless(Path("/proc/self").exists(), "needs /proc")
    def test_ctrl_c_stops_the_program_once_and_lets_it_end_in_order(self):
        marks = self.folder / "marks"
        fake = self.script("fake", VERSION + f"trap 'echo stop >> \"{marks}\"; exit 130' INT\necho start > '{marks}'\n"
                                             "while :; do sleep 0.1; done\n")
        self.interrupted(self.folder / "run", fake, marks.exists)
        self.assertEqual(marks.read_text(), "start\nstop\n")

    @unittest.skipUnless(Path("/proc/self").exists(), "needs /proc")
    def test_ctrl_c_stops_the_real_program_and_the_next_call_continues(self):
        folder = self.folder / "run"
        self.interrupted(folder, support.PROGRAM, (folder / "out/sensitivity.json").exists)
        self.assertFalse((folder / "out/plan.yaml").exists())
        with contextlib.redirect_stderr(io.StringIO()) as seen:
            torch.manual_seed(0)
            plan = bitplan.plan(Mlp(), table(1500, 1), folder=folder, program=support.PROGRAM, threads=1,
                                settings={"verify.bootstrap": 200})
        self.assertEqual(len(plan.layers), 3)
        self.assertIn("calibration: ", seen.getvalue())
        self.assertNotIn("posterior laplace: ", seen.getvalue(), "what was done before is done again")


if __name__ == "__main__":
    support.main()
