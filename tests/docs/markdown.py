"""A document as blocks: headings, paragraphs, tables and code, each with the comment `figures` before it."""
import re
from dataclasses import dataclass, field
from pathlib import Path

CODE = re.compile(r"`[^`]*`")
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]*)\)")


@dataclass
class Block:
    kind: str  # heading, text, table or code
    line: int  # of its first line, from 1
    lines: list
    rules: list = field(default_factory=list)  # the lines of its comment

    @property
    def text(self):
        return " ".join(" ".join(self.lines).split())

    def rows(self):
        """Cells of every row of a table, head first; the line below the head is left out."""
        split = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))] for line in self.lines]
        return split[:1] + split[2:]


def kind_of(line):
    if line.startswith("|"):
        return "table"
    return "heading" if line.startswith("#") else "text"


def rules_of(comment):
    """The rules of a comment, or of the file that "from NAME" means, one a line; an indented line goes on."""
    elsewhere = re.fullmatch(r"from ([\w-]+)", comment)
    if elsewhere:
        comment = (Path(__file__).parent / f"{elsewhere[1]}.figures").read_text(encoding="utf-8")
    lines = re.sub(r"\n +", " ", comment).split("\n")
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def blocks(text):
    """The blocks of a document in order."""
    result, rules, current = [], [], None
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        line = lines[at]
        if line.startswith("<!--"):
            end = next(i for i in range(at, len(lines)) if "-->" in lines[i])
            comment = "\n".join(lines[at:end + 1]).removeprefix("<!--").partition("-->")[0].strip()
            if comment.split()[:1] == ["figures"]:
                rules = rules_of(comment.removeprefix("figures").strip())
            current, at = None, end + 1
            continue
        if line.startswith("```"):
            end = next(i for i in range(at + 1, len(lines)) if lines[i].startswith("```"))
            result.append(Block("code", at + 1, lines[at + 1:end], rules))
            rules, current, at = [], None, end + 1
            continue
        if not line.strip():
            current = None
        elif current is not None and current.kind == kind_of(line) != "heading":
            current.lines.append(line)
        else:
            current = Block(kind_of(line), at + 1, [line], rules)
            rules = []
            result.append(current)
        at += 1
    return result


def plain(text):
    """Text without bold marks and links; what code marks hold stays."""
    return LINK.sub(r"\1", text).replace("**", "").replace("`", "").strip()


def name_in(cell):
    """What the first cell of a row names: its first code, or all of it."""
    code = CODE.search(cell)
    return code[0].strip("`") if code else plain(cell)


def anchor(heading):
    """The anchor that GitHub gives a heading."""
    words = re.sub(r"[^\w\s-]", "", plain(heading.lstrip("#")).lower())
    return words.strip().replace(" ", "-")
