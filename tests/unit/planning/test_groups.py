"""Groups of samples: the same in every process of a run, of about equal size, none empty."""

import os

import pytest
from packed_esm.planning.groups import sample_groups


def samples_of(folder, *sizes):
    for number, size in enumerate(sizes):
        (folder / f"{number}.fasta").write_bytes(b"x" * size)
    return {f"s{number}": str(folder / f"{number}.fasta") for number in range(len(sizes))}


def test_few_samples_are_groups_of_their_own(tmp_path):
    assert sample_groups(samples_of(tmp_path, 1, 1000, 1), 1e9, most=3) == [["s0"], ["s1"], ["s2"]]


def test_groups_have_about_equal_bytes_and_keep_the_order(tmp_path):
    assert sample_groups(samples_of(tmp_path, 10, 10, 10, 30, 20, 10), 1e9, most=3) == [
        ["s0", "s1", "s2"],
        ["s3"],
        ["s4", "s5"],
    ]


def test_a_large_sample_leaves_no_group_empty(tmp_path):
    assert sample_groups(samples_of(tmp_path, 1, 1000, 1, 1), 1e9, most=3) == [["s0"], ["s1"], ["s2", "s3"]]


@pytest.mark.parametrize("sizes", [(0,) * 10, (5,) * 1000])
def test_every_sample_is_in_one_group_and_there_are_no_more_groups_than_asked(tmp_path, sizes):
    samples = samples_of(tmp_path, *sizes)
    groups = sample_groups(samples, 1e9, most=7)
    assert [sample for group in groups for sample in group] == list(samples) and len(groups) <= 7


def test_small_samples_share_a_group(tmp_path):
    assert sample_groups(samples_of(tmp_path, 1, 1, 1, 1), 0.3e9, most=3) == [["s0", "s1"], ["s2", "s3"]]
    assert sample_groups(samples_of(tmp_path, 1, 1, 1, 1), 1, most=3) == [["s0", "s1", "s2", "s3"]]


def test_a_group_has_no_more_samples_than_snakemake_can_compare():
    samples = {str(i): __file__ for i in range(2500)}
    assert len(sample_groups(samples, 1e-9)) == 3 and max(map(len, sample_groups(samples, 1e-9))) <= 1000


def test_many_small_samples_beside_a_large_one_are_in_groups_that_are_not_too_large(tmp_path):
    small, large = samples_of(tmp_path, 300, 0).values()
    os.truncate(large, 10**10)
    samples = {**{str(i): small for i in range(24_999)}, "large": large}
    groups = sample_groups(samples, 15.0)
    assert [sample for group in groups for sample in group] == list(samples) and groups[-1] == ["large"]
    assert len(groups) == 26 and {len(group) for group in groups[:-1]} == {1000, 999}
    assert max(map(len, sample_groups(samples, 15.0, most=2))) == 12_500  # a share of all samples


def test_files_that_are_not_there_yet_count_the_same():
    assert sample_groups({name: "later.fasta" for name in "abcd"}, None, most=2) == [["a", "b"], ["c", "d"]]
