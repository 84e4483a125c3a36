"""The list of what is broken on purpose fits the code and its tests."""

import mutation
import pytest


def test_every_text_stands_in_its_file_once_and_is_changed():
    mutation.check_texts(mutation.MUTATIONS)
    assert [row for row in mutation.MUTATIONS if row[3] == row[4]] == []


def test_a_text_that_is_not_there_or_stands_twice_is_named():
    for text, times in (("no such text", 0), ("return", r"\d+")):
        with pytest.raises(SystemExit, match=f"alphabet.py has '{text}' {times} times"):
            mutation.check_texts([("tokens", "a row", "sequences/alphabet.py", text, "")])


def test_every_mutation_has_tests_that_can_notice_it():
    """A name without a file would be left out in silence, and without any file all tests would run."""
    for fact, what, file, *_ in mutation.MUTATIONS:
        assert len(mutation.tests_of(fact, file)) == len(mutation.names_of_tests(fact, file)), (fact, what)
