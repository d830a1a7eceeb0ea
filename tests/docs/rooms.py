#!/usr/bin/env python3
"""Checks that includes run down: a room may include only rooms that CMakeLists.txt names before it.

    tests/docs/rooms.py [--root DIR]

The order is that of the `foreach(room ...)` lines of CMakeLists.txt, the program (cli) last.
"""
import argparse
import re
import sys
from pathlib import Path

INCLUDE = re.compile(r'^\s*#\s*include\s+"(?:bitplan/)?([a-z_]+)/[^"]+"')


def rooms_in_order(cmake):
    names = []
    for listed in re.findall(r"foreach\(room ([a-z_\s]+)\)", cmake):
        names += listed.split()
    return names + ["cli"]


def upward_includes(root, order):
    """(file, line, own room, included room) of every include that runs up."""
    place = {name: i for i, name in enumerate(order)}
    for top in (root / "src", root / "include" / "bitplan"):
        for path in sorted(top.rglob("*")):
            if path.suffix not in (".h", ".cpp"):
                continue
            own = path.relative_to(top).parts[0]
            if own not in place:
                yield path, 1, own, None
                continue
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                found = INCLUDE.match(line)
                if found and place.get(found[1], len(order)) > place[own]:
                    yield path, number, own, found[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[2])
    root = parser.parse_args().root
    order = rooms_in_order((root / "CMakeLists.txt").read_text(encoding="utf-8"))
    if len(order) < 3:
        sys.exit("rooms: CMakeLists.txt names no rooms")
    faults = list(upward_includes(root, order))
    for path, line, own, other in faults:
        what = f"room {own} may not include {other}" if other else f"room {own} is not in CMakeLists.txt"
        print(f"{path.relative_to(root)}:{line}: {what}; the order is {', '.join(order)}")
    print(f"rooms: {len(order)} in order, {len(faults)} includes run up")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
