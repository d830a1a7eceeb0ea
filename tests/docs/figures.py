#!/usr/bin/env python3
"""Figures in README.md and docs/*.md are those of benchmarks/results/*.json.

    figures.py            checks all documents; exit 1 and a line for everything that is wrong
    figures.py --change   changes every checked digit of the tables in turn, and wants each change noticed

A table, a paragraph or code follows a comment that says where its figures are (templates: results.py):

    <!-- figures
    file = compare-resnet20
    2-7 = {100 * result.plans[allocator=$1,budget=$column].metrics.accuracy:.2f}
    bold = result.plans[allocator=$1,budget=$column].tie_with_best
    -->

Rules that are too long for a document lie beside this file: <!-- figures from NAME --> reads NAME.figures.

  file = NAME            where paths without a file of their own look; $N: what column N of the row says
  N = TEMPLATE           column N, or columns N-M, of a table; ROW:N only of rows whose label ROW, a shell pattern, fits
  bold = EXPRESSION      a cell of a column with $column is bold where this holds
  says = TEMPLATE        text that has to stand in a paragraph or code
  bound = TEXT >= EXPR   text that has to stand there, whose last number is not below the value of the expression
  setting = TEXT         figures that were chosen, not measured
  history = COMMIT       figures without a file: the commit that they were measured at, which the reader has to see too

A table in which a cell behind the first is a number, alone or with its unit, shows figures and needs such a comment. So
does every paragraph of README.md and docs/results.md with a percentage or a decimal fraction. An empty cell stands for
a value that is in no file. Every result file states its command.
"""
import re
import sys
from decimal import Decimal
from fnmatch import fnmatchcase

from markdown import CODE, LINK, blocks, name_in, plain
from results import RESULTS, ROOT, Malformed, Missing, evaluate, load, shown, states_command

EVERY_PARAGRAPH = {"README.md", "docs/results.md"}
FIGURE = re.compile(r"(?<![A-Za-z]-)(?<![\w.])\d[\d,]*\.\d+|\d[\d,]*\s?%")
ALWAYS = ["95 %"]  # of intervals
MEASURED = re.compile(r"[*+(\[-]*\d[\d,.]*\**(?:$|\s*[%,\[±/]|\s(?:nats|points|ms|s|bytes|GiB|times)\b)")
RULE = re.compile(r"(?:(?P<row>.+):)?(?P<first>\d+)(?:-(?P<last>\d+))?$")


class Comment:
    """What the comment before a block asks for."""

    def __init__(self, lines):
        self.file, self.bold, self.columns = "", "", []
        self.says, self.bounds, self.settings, self.history = [], [], list(ALWAYS), []
        lists = {"says": self.says, "bound": self.bounds, "setting": self.settings, "history": self.history}
        for line in filter(None, lines):
            key, equals, value = line.partition(" = ")
            column = RULE.match(key)
            if not equals:
                raise Malformed(f"'{line}' is no rule: KEY = VALUE")
            if column:
                first = int(column["first"])
                self.columns.append((column["row"] or "*", range(first, int(column["last"] or first) + 1), value))
            elif key in ("file", "bold"):
                setattr(self, key, value)
            elif key in lists:
                lists[key].append(value)
            else:
                raise Malformed(f"unknown rule '{key}'")

    def template(self, row, column):
        """The last rule for a cell of a row wins; None without one."""
        labels = (name_in(row[0]), plain(row[0]))
        fitting = [template for pattern, columns, template in self.columns
                   if column in columns and any(fnmatchcase(label, pattern) for label in labels)]
        return fitting[-1] if fitting else None


def shows_figures(block):
    rows = block.rows()[1:]
    return any(MEASURED.match(CODE.sub("", cell)) for row in rows for cell in row[1:])


def check_cell(comment, names, head, row, column):
    """What is wrong with one cell, or None; `column` from 1."""
    cell = row[column - 1]
    template = comment.template(row, column)
    if template is None:
        if column == 1 or comment.history or not re.search(r"\d", LINK.sub("", CODE.sub("", cell))):
            return None
        return f"column {column} ({head[column - 1]}) shows '{cell}', and no rule says where it comes from"
    names = dict(names, **{str(i + 1): name_in(text) for i, text in enumerate(row)})
    number = re.search(r"[\d.]+", head[column - 1])
    names["column"] = number[0] if number else ""
    try:
        expected = shown(template, names)
        if comment.bold and "$column" in template and evaluate(comment.bold, names):
            expected = f"**{expected}**"
    except Missing:
        expected = ""
    if expected == cell.replace("`", ""):
        return None
    return f"column {column} ({head[column - 1]}) shows '{cell}'; the results say '{expected}'"


def check_table(comment, block):
    """(line, what is wrong) of every cell that the results do not bear out."""
    head, *rows = block.rows()
    for line, row in enumerate(rows, block.line + 2):
        if len(row) != len(head):
            yield line, f"a row of {len(row)} cells under a head of {len(head)}"
            continue
        for column in range(1, len(row) + 1):
            wrong = check_cell(comment, {"file": comment.file}, head, row, column)
            if wrong:
                yield line, wrong


def stands(words, text):
    """Whether words stand in a text, not as a part of a longer number or with another sign."""
    return re.search(rf"(?<![\w.,+-]){re.escape(words)}(?![\d]|[.,]\d)", text) is not None


def check_text(comment, block, every):
    text = block.text
    left = text if block.kind == "code" else LINK.sub(r"\1", CODE.sub("", text))
    for template in comment.says:
        expected = " ".join(shown(template, {"file": comment.file}).split())
        if not stands(expected, text):
            yield f"the results say '{expected}', which does not stand there"
        left = left.replace(expected, " ")
    for bound in comment.bounds:
        stated, _, expression = bound.partition(" >= ")
        value = evaluate(expression, {"file": comment.file})
        if not stands(stated, text) or Decimal(re.findall(r"[\d.]*\d", stated)[-1]) < value:
            yield f"'{stated}' does not stand there, or the results say {value:.6g}"
        left = left.replace(stated, " ")
    for setting in comment.settings:
        if setting not in ALWAYS and not stands(setting, text):
            yield f"the setting '{setting}' does not stand there"
        left = left.replace(setting, " ")
    if every and not comment.history:
        for figure in FIGURE.findall(left):
            yield f"no rule says where '{figure}' comes from"


def check_block(document, block, around):
    """(line, what is wrong) of a block; `around`: its text and that of its neighbours."""
    try:
        comment = Comment(block.rules)
        for commit in comment.history:
            if not re.fullmatch(r"[0-9a-f]{7,40}", commit) or commit not in around:
                yield block.line, f"measured at commit {commit}, which the text before or after it does not say"
        if block.kind == "table":
            if not block.rules and shows_figures(block):
                yield block.line, "a table with figures, and no comment says where they come from"
            elif block.rules:
                yield from check_table(comment, block)
        elif block.rules or block.kind != "code":
            every = bool(block.rules) or document in EVERY_PARAGRAPH
            yield from ((block.line, text) for text in check_text(comment, block, every))
        for name in re.findall(r"([\w.-]+)#", " ".join(block.rules)) + [comment.file] * (comment.file[:1] not in "$"):
            if not states_command(load(name)):
                yield block.line, f"benchmarks/results/{name}.json states no command"
    except (Malformed, KeyError, TypeError) as error:
        yield block.line, f"the comment before it: {error}"
    except Missing as error:
        yield block.line, f"no result file has {error}"


def documents():
    """(name, blocks) of README.md and every file of docs/."""
    for file in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        yield file.relative_to(ROOT).as_posix(), blocks(file.read_text(encoding="utf-8"))


def check_all():
    wrong, checked = [], 0
    for document, parts in documents():
        for i, block in enumerate(parts):
            around = " ".join(part.text for part in parts[max(i - 1, 0):i + 2])
            checked += bool(block.rules)
            wrong += [f"{document}:{line}: {text}" for line, text in check_block(document, block, around)]
    for file in sorted(RESULTS.glob("*.json")):
        if not states_command(load(file.stem)):
            wrong.append(f"benchmarks/results/{file.name}: states no command")
    return wrong, f"{checked} tables and paragraphs agree with their results"


def change_all():
    """Changes one digit after the other of all cells that a rule checks; returns what went unnoticed."""
    unnoticed, changed = [], 0
    for document, parts in documents():
        for block in parts:
            if block.kind != "table" or not block.rules:
                continue
            comment = Comment(block.rules)
            head, *rows = block.rows()
            for row in rows:
                # Cells that other columns are looked up by are named by their rule; changing them changes the look-up.
                for column in range(2, len(row) + 1):
                    if comment.template(row, column) is None:
                        continue
                    cell = row[column - 1]
                    for at in (i for i, letter in enumerate(cell) if letter.isdigit()):
                        changed += 1
                        other = cell[:at] + str((int(cell[at]) + 1) % 10) + cell[at + 1:]
                        damaged = [*row[:column - 1], other, *row[column:]]
                        if check_cell(comment, {"file": comment.file}, head, damaged, column) is None:
                            unnoticed.append(f"{document}:{block.line}: '{plain(row[0])}': {cell} changed to {other}")
    if changed == 0:
        unnoticed.append("no table has a figure that is checked")
    return unnoticed, f"{changed} changed digits noticed"


if __name__ == "__main__":
    wrong, summary = change_all() if sys.argv[1:] == ["--change"] else check_all()
    print("\n".join(wrong) if wrong else summary)
    sys.exit(1 if wrong else 0)
