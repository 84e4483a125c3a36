"""docs/faults.md has every case, and the tests elsewhere that it names are there."""

import re

from conftest import ROOT

from . import table, test_files_between, test_input, test_moments, test_safety, test_sheet_and_config

MODULES = (test_input, test_sheet_and_config, test_files_between, test_moments, test_safety)
SECTIONS = {module.TITLE: module.ROWS for module in MODULES}


def test_the_document_has_every_case_as_it_is_expected_and_what_was_seen(request):
    if request.config.getoption("--all-faults"):
        return  # it is about to be written
    documented = table.read()
    rows = {(title, table.cell(row.case)): table.cell(row.expected) for title, rows in SECTIONS.items() for row in rows}
    assert len(rows) == sum(map(len, SECTIONS.values()))  # no case has the name of another
    assert {key: expected for key, (expected, _) in documented.items()} == rows, f"run: {table.WRITE}"
    held = {
        (title, table.cell(row.case)): f"`tests/{row.given}`"
        for title, rows in SECTIONS.items()
        for row in rows
        if table.is_held_elsewhere(row)
    }
    assert {key: documented[key][1] for key in held} == held, f"run: {table.WRITE}"


def test_the_tests_that_are_named_are_there():
    for row in (row for rows in SECTIONS.values() for row in rows if table.is_held_elsewhere(row)):
        file, name = row.given.split("::")
        assert re.search(rf"^def {name}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE), row.given
