"""The list of what is broken on purpose fits the code and its tests, and docs/mutations.md has every row of it."""

import re

import mutation
import pytest
from conftest import ROOT

ROWS = [
    line.strip("| ").split(" | ") for line in (ROOT / "docs/mutations.md").read_text().splitlines() if line[:1] == "|"
]


def test_every_text_stands_in_its_file_once_and_is_changed():
    mutation.check_texts(mutation.MUTATIONS)
    assert [row for row in mutation.MUTATIONS if row[3] == row[4]] == []


def test_a_text_that_is_not_there_or_stands_twice_is_named():
    for text, times in (("no such text", 0), ("return", r"\d+")):
        with pytest.raises(SystemExit, match=f"alphabet.py has '{text}' {times} times"):
            mutation.check_texts([("tokens", "a row", "sequences/alphabet.py", text, "")])


def test_an_unknown_fact_is_an_error_that_lists_the_nearest():
    with pytest.raises(SystemExit, match="there is no fact 'manifst'; the nearest are manifest, "):
        mutation.rows_of(["masks", "manifst"])
    assert {row[0] for row in mutation.rows_of(["masks", "manifest"])} == {"masks", "manifest"}
    assert mutation.rows_of([]) == mutation.MUTATIONS


def test_every_mutation_has_tests_that_can_notice_it():
    """A name without a file would be left out in silence, and without any file all tests would run."""
    for fact, what, file, *_ in mutation.MUTATIONS:
        assert len(mutation.tests_of(fact, file)) == len(mutation.names_of_tests(fact, file)), (fact, what)


def test_the_page_has_a_row_for_every_mutation_and_the_tests_it_names_are_there():
    rows = ROWS[2:]
    assert sorted(tuple(row[:2]) for row in rows) == sorted(row[:2] for row in mutation.MUTATIONS), (
        "run the facts whose rows differ with: python tests/mutation.py FACT, and put what it prints into the page"
    )
    for fact, what, noticed_by in rows:
        file, name = noticed_by.strip("`").split("::")
        assert re.search(rf"^def {name}\(", (ROOT / "tests/unit" / file).read_text(), re.MULTILINE), (fact, what)
