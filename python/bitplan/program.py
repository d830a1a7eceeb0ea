"""Finds the program `bitplan` and runs it."""
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

from .errors import INTERNAL, NOT_FOUND, USAGE, Error, one_line

VERSION = "0.1.0"  # of the package
OLDEST = (0, 1, 0)  # program that the package can drive

_STOP_SECONDS = 20  # that an interrupted program gets to leave its folder in order
_VERSION_SECONDS = 120  # a program of many libraries starts slowly on a busy machine
_known = {}  # what has been seen to be the program: (path, size, time of change)


def _in_checkout():
    """The program that a checkout of the project has built, for a package that lies in it."""
    root = Path(__file__).resolve().parents[2]
    if (root / "CMakeLists.txt").is_file():
        for preset in ("release", "edit", "dev"):
            program = root / "build" / preset / "bitplan"
            if program.is_file():
                return str(program)
    return None


def _named(name, said_by):
    name = os.path.expanduser(os.fspath(name))
    if os.path.isdir(name):
        raise Error(f"{said_by} is the folder {name}; name the program in it", NOT_FOUND)
    if os.path.isfile(name) and not os.access(name, os.X_OK):
        raise Error(f"{said_by}: {name} is not executable", NOT_FOUND)
    found = os.path.abspath(name) if os.path.isfile(name) else shutil.which(name)
    if found is None:
        raise Error(f"{said_by}: there is no program {name}", NOT_FOUND)
    return found


def _check_version(program):
    status = os.stat(program)
    key = (program, status.st_size, status.st_mtime_ns)
    if key in _known:
        return
    try:
        answer = subprocess.run([program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, check=False,
                                timeout=_VERSION_SECONDS, encoding="utf-8", errors="replace")
    except (OSError, subprocess.SubprocessError) as error:
        raise Error(f"{program} cannot be run: {one_line(error)}", NOT_FOUND) from error
    version = re.fullmatch(r"bitplan (\d+)\.(\d+)\.(\d+)\S*", answer.stdout.strip())
    if answer.returncode != 0 or version is None:
        said = " ".join((answer.stdout or answer.stderr).split())[:120]
        raise Error(f"{program} is not bitplan, or does not start: --version answers '{said}' "
                    f"(exit code {answer.returncode})", NOT_FOUND)
    if tuple(int(part) for part in version.groups()) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise Error(f"{program} is {answer.stdout.strip()}; this package needs {oldest} or newer", USAGE)
    _known[key] = True


def find(program=None):
    """Path of the program: `program`, else the environment variable BITPLAN, else PATH, else the build of the checkout
    that the package lies in. Error where there is none, or where it is too old."""
    if program is not None:
        found = _named(program, "program")
    elif os.environ.get("BITPLAN"):
        found = _named(os.environ["BITPLAN"], "the environment variable BITPLAN")
    else:
        found = shutil.which("bitplan") or _in_checkout()
    if found is None:
        raise Error("the program bitplan was not found: build it, and put it on PATH, name it in the environment "
                    "variable BITPLAN, or give program=", NOT_FOUND)
    found = os.path.abspath(found)
    _check_version(found)
    return found


class _Progress(threading.Thread):
    """Passes lines of a stream on to sys.stderr while they come, and keeps the last error and all warnings."""

    def __init__(self, stream, quiet):
        super().__init__(daemon=True)
        self.stream, self.quiet = stream, quiet
        self.error, self.last, self.warnings = None, "", []

    def run(self):
        for line in self.stream:
            text = line.strip()
            self.last = text or self.last
            if text.startswith("bitplan: "):
                self.error = text[len("bitplan: "):]
                continue
            if text.startswith("warning: "):
                self.warnings.append(text[len("warning: "):])
            if not self.quiet:
                self.show(line)

    def show(self, line):
        try:
            sys.stderr.write(line)
            sys.stderr.flush()
        except (AttributeError, OSError, ValueError):  # closed, or none: the program must not wait for a reader
            self.quiet = True


def _stop(process):
    """Ends the program: first as Ctrl-C does, which leaves its folder in order, then by force."""
    try:
        for stop in (signal.SIGINT, signal.SIGKILL):
            if process.poll() is None:
                process.send_signal(stop)
                try:
                    process.wait(_STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    pass
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _failure(code, progress):
    if code >= 0:
        return Error(progress.error or progress.last or f"the program ended with exit code {code}", code)
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    memory = "; perhaps the memory was used up" if -code == signal.SIGKILL else ""
    return Error(f"the program was ended by {name}{memory}", code)


def run(program, arguments, quiet, folder=None):
    """(standard output, warnings) of the program, started in a folder. Error with its message and exit code where it
    fails. Ctrl-C stops it.

    It runs in a session of its own, so that Ctrl-C in a terminal reaches it once, from here.
    """
    try:
        process = subprocess.Popen([program, *map(os.fspath, arguments)], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
                                   cwd=folder, encoding="utf-8", errors="replace")
    except OSError as error:
        raise Error(f"{program} cannot be run: {one_line(error)}", INTERNAL) from error
    progress = _Progress(process.stderr, quiet)
    progress.start()
    try:
        output = process.stdout.read()
        code = process.wait()
    except BaseException:
        _stop(process)
        raise
    finally:
        progress.join(_STOP_SECONDS)
        process.stdout.close()
        if not progress.is_alive():
            process.stderr.close()
    if code != 0:
        raise _failure(code, progress)
    return output, progress.warnings
