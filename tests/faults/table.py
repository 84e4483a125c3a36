"""The rows of docs/faults.md: what is wrong, what must happen, and what was seen when the tests ran."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conftest import ROOT

DOCUMENT = ROOT / "docs" / "faults.md"
LONGEST = 400  # characters of what was seen
WRITE = "pytest tests/faults --all-faults -p no:xdist"
HEAD = f"""# What can go wrong, and what happens then

Written by `{WRITE}`, which runs every case in full. `./run test` runs every case too, with
fewer bits flipped, and fails if this page lacks a case or says something else than what it sees. "Seen" is the last
line of the program's output, what the manifest says of the record, or the name of the test that holds the case. Of 200
bits flipped in a file, half are anywhere in it and half within 2 KB of its ends, where the file describes itself.
Harmless means that the next program wrote the same bytes, or read the same values, ids and order. A fuzzer guided by
coverage (`tests/faults/fuzz_fasta.py`, ten minutes, 649,416 inputs as FASTA) found one file that was read wrongly, half
a byte order mark, which is a row here now.
"""


@dataclass(frozen=True)
class Row:
    """A case: what must happen, and what its test needs (`given`, and the words that must be seen).

    `varies` is a pattern of what is another text in another run: times, paths, numbers.
    """

    case: str
    expected: str
    given: Any = None
    words: str = ""
    varies: str = ""

    def __str__(self) -> str:
        return re.sub(r"\W+", "-", self.case).strip("-")


def held_by(case: str, expected: str, test: str) -> Row:
    """Return a row that a test elsewhere holds, `folder/file.py::name` below tests/."""
    return Row(case, expected, given=test)


def is_held_elsewhere(row: Row) -> bool:
    return isinstance(row.given, str) and "::" in row.given


def cell(text: str) -> str:
    """Return `text` for a cell of a table."""
    text = " ".join(text.replace(str(ROOT), "packed-esm").split())
    text = text if len(text) <= LONGEST else text[: LONGEST - 4] + " ..."
    return text.replace("|", r"\|").replace("<", "&lt;")


def check_seen(title: str, row: Row, text: str) -> None:
    """Hold what was seen of a row to what the document says of it."""
    _, documented = read().get((title, cell(row.case)), ("", ""))
    now, before = (re.sub(row.varies, "...", part) if row.varies else part for part in (cell(text), documented))
    assert now == before, f"{DOCUMENT.name} says of {row.case!r}: {before}\nseen: {now}\nwrite it anew: {WRITE}"


def write(sections: dict[str, list[Row]], seen: dict[tuple[str, str], str]) -> None:
    """Write the document; raise ValueError where nothing was seen of a row in this run."""
    lines = [HEAD]
    for title, rows in sections.items():
        lines += [f"## {title}", "", "| case | expected | seen |", "|---|---|---|"]
        for row in rows:
            if not is_held_elsewhere(row) and (title, row.case) not in seen:
                raise ValueError(f"nothing was seen of {row.case!r}: {DOCUMENT.name} stays as it was")
            text = f"`tests/{row.given}`" if is_held_elsewhere(row) else cell(seen[title, row.case])
            lines.append(f"| {cell(row.case)} | {cell(row.expected)} | {text} |")
        lines.append("")
    DOCUMENT.write_text("\n".join(lines))


def read(path: Path = DOCUMENT) -> dict[tuple[str, str], tuple[str, str]]:
    """Return {(section, case): (expected, seen)} of the document."""
    found, title = {}, ""
    for line in path.read_text().splitlines() if path.exists() else ():
        if line.startswith("## "):
            title = line[3:]
        elif line.startswith("| ") and not line.startswith("| case"):
            case, expected, seen = (part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1])
            found[title, case] = (expected, seen)
    return found
