#!/usr/bin/env python3
"""Every link of README.md, CONTRIBUTING.md, CHANGELOG.md, python/README.md and docs/*.md to a file of the project, or
to a heading, leads somewhere. Addresses of the web are not asked for."""
import sys
from pathlib import Path

from markdown import LINK, anchor, blocks

ROOT = Path(__file__).resolve().parents[2]


def parts(file):
    return blocks(file.read_text(encoding="utf-8"))


def dead_links(file):
    """(line, target) of every link that leads nowhere."""
    for block in parts(file):
        if block.kind == "code":
            continue
        for at, line in enumerate(block.lines):
            for _, target in LINK.findall(line):
                path, _, heading = target.partition("#")
                if path.startswith(("http://", "https://")):
                    continue
                goal = (file.parent / path).resolve() if path else file
                if not goal.exists():
                    yield block.line + at, target
                elif heading and heading not in [anchor(b.text) for b in parts(goal) if b.kind == "heading"]:
                    yield block.line + at, target


if __name__ == "__main__":
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "python/README.md",
             *sorted((ROOT / "docs").glob("*.md"))]
    dead = [f"{file.relative_to(ROOT)}:{line}: {target} leads nowhere"
            for file in files for line, target in dead_links(file)]
    print("\n".join(dead) if dead else f"links of {len(files)} documents lead somewhere")
    sys.exit(1 if dead else 0)
