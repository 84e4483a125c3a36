"""Sample sheets and configurations with mistakes: named with line or key before anything runs."""

import pytest
import yaml
from conftest import ROOT
from packed_esm.checkpoints.registry import check_layers, find_model
from packed_esm.planning.config import check, read_config
from packed_esm.planning.samples import read_sample_sheet
from workflow.conftest import Project, proteins

from .table import Row, held_by

TITLE = "Input: sample sheet and configuration"
STOPS = "stops before anything runs, in one line with line or key and what is wanted"
SCHEMA = ROOT / "workflow/schemas/config.schema.yaml"
SAMPLES_SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/samples.schema.yaml").read_text())


def sheet(case, text, words):
    return Row(f"sheet: {case}", STOPS, text if isinstance(text, bytes) else text.encode(), words)


def config(case, words, **values):
    return Row(f"config: {case}", STOPS, values, words)


SHEETS = [
    sheet("wrong columns", "sample\tfile\ns\ts.fasta\n", "line 2: Additional properties are not allowed ('file' was"),
    sheet("commas for tabs", "sample,fasta\ns,s.fasta\n", "the columns sample and fasta, separated by a tab"),
    sheet("no header", "s\ts.fasta\nt\tt.fasta\n", "the columns sample and fasta, separated by a tab"),
    sheet("two columns of one name", "sample\tfasta\tsample\ns\ts.fasta\tt\n", "two columns 'sample'"),
    sheet("a sample twice", "sample\tfasta\ns\ta\nt\tb\ns\tc\n", "line 4: sample 's' is in more than one row"),
    sheet("a missing cell", "sample\tfasta\ns\n", "line 2: the row 's' has not as many cells as the header"),
    sheet("an empty cell", "sample\tfasta\ns\t\n", "line 2, fasta: '' should be non-empty (Path of its FASTA file"),
    sheet("a cell too many", "sample\tfasta\ns\tx\tnote\n", "line 2: the row 's\\tx\\tnote' has not as many cells"),
    sheet("a name with a slash", "# mine\nsample\tfasta\n../s\tx\n", "line 3, sample: '../s' does not match"),
    sheet("a name of 300 characters", f"sample\tfasta\n{'s' * 300}\tx\n", "is too long (Name of the sample"),
    sheet("an unbalanced quote", 'sample\tfasta\n"a\tx\nb"\ty\n', "line 2, sample: '\"a' does not match"),
    sheet("empty", "", "no sample in it"),
    sheet("a header alone", "sample\tfasta\n\n", "no sample in it"),
    sheet("not text", b"sample\tfasta\ns\t\xff\xfe\n", "cannot be read ('utf-8' codec"),
]
CONFIGS = [
    config("a key misspelt", "config: there is no key modle; did you mean model?", modle="demo"),
    config("a word in place of a list of numbers", "layers, 0: 'a' is not of type 'integer'", layers="[a]"),
    config("a list that does not end", "layers, 0: '[0, 1' is not of type 'integer'", layers="[0, 1"),
    config("no layer", "layers: [] should be non-empty", layers="[]"),
    config(
        "layer 99 of a named model",
        "layers: 99 is not a layer of demo; it has 0 (embedding) to 6, or -7 to -1",
        layers="[99]",
    ),
    config("a negative budget", "tokens_per_pack: -5 is less than the minimum of 64", tokens_per_pack="-5"),
    config("no chunk", "chunks: 0 is less than the minimum of 1", chunks=0),
    config("a fraction of a chunk", "chunks: 2.5 is not", chunks="2.5"),
    config("a record of no letter", "max_record_residues: 0 is less than the minimum of 1", max_record_residues="0"),
    config("an unknown word", "device: 'gpu' is not one of ['auto', 'cpu', 'cuda', 'mps']", device="gpu"),
    config(
        "an unknown pooling",
        "pooling, 0: 'median' is not one of ['mean', 'max', 'std', 'bos', 'eos']",
        pooling="median",
    ),
    config("one sequence to validate", "validation, sequences: 1 is less than", validation={"sequences": "1"}),
    config(
        "a section misspelt inside",
        "there is no key sequence; did you mean validation.sequences?",
        validation={"sequence": 3},
    ),
    config("a word in place of a section", "validation: 'all' is not of type 'object'", validation="all"),
    config(
        "a model that is neither name nor path", "model: 'esm2_9B' is neither a known name nor a path", model="esm2_9B"
    ),
]
SNAKEMAKE = [
    Row(
        "a FASTA that is not there, through snakemake",
        STOPS,
        ("nowhere.fasta", ""),
        "there is no FASTA file nowhere.fasta",
    ),
    Row(
        "a FASTA whose path has < and > (Snakemake's path variables), through snakemake",
        STOPS,
        ("<x>.fasta", ""),
        "line 2, fasta: '<x>.fasta'",
    ),
    Row("layer 99, through snakemake", STOPS, ("s.fasta", "layers=[99]"), "layers: 99 is not a layer of demo"),
    Row(
        "a key misspelt, through snakemake",
        STOPS,
        ("s.fasta", "modle=demo"),
        "there is no key modle; did you mean model?",
    ),
]
ROWS = [
    *SHEETS,
    held_by("sheet: a byte order mark, Windows line ends, empty columns, blanks around cells", "read as meant", "unit/planning/test_config.py::test_what_editors_and_spreadsheets_leave_in_a_sheet_changes_nothing"),
    held_by("~ in samples, metadata, reuse and the sheet", "the home folder", "workflow/test_names_of_files.py::test_paths_in_the_home_folder"),
    held_by("a misspelt word in an option of the library", "refused by key, value and what it may be", "unit/test_options.py::test_a_misspelt_word_is_refused_by_its_key_and_leaves_nothing"),
    held_by("sheet: absolute and relative paths", "both work", "workflow/test_workflow.py::test_sample_names_are_text_and_sheets_can_be_elsewhere"),
    held_by("sheet: names like NA and 001", "stay what they are", "unit/planning/test_config.py::test_cells_of_the_sample_sheet_stay_as_they_are"),
    *CONFIGS,
    *SNAKEMAKE,
    held_by("braces in the path of a FASTA, a model or metadata", STOPS, "workflow/test_results.py::test_braces_in_a_path_are_refused_by_its_key"),
    held_by("a model, FASTA, metadata or reuse that is not there, over finished results", STOPS, "workflow/test_results.py::test_what_is_not_there_stops_the_run_over_finished_results"),
    held_by("other settings, .snakemake lost", "what they determine runs again", "workflow/test_results.py::test_other_settings_rerun_what_they_determine"),
    held_by("a FASTA edited in place, size and time kept, .snakemake lost", "all runs again", "workflow/test_results.py::test_a_fasta_edited_in_place_with_its_time_and_size_kept_is_noticed"),
    held_by("a FASTA replaced by an older file", "all runs again", "workflow/test_results.py::test_a_fasta_replaced_by_an_older_file_is_noticed"),
    held_by("a checkpoint edited in place, size and time kept", "embedding runs again", "workflow/test_results.py::test_a_checkpoint_edited_in_place_with_its_time_and_size_kept_is_noticed"),
    held_by("another checkpoint of the same name", "refused until `name` is set", "workflow/test_results.py::test_another_checkpoint_of_the_same_name_is_refused_until_it_has_a_name"),
    held_by("files of other samples, formats and counts of chunks", "named, and left", "workflow/test_results.py::test_files_of_other_settings_are_named_and_left"),
    held_by("results of version 0.3.0 under results/", "named, left, and reused", "workflow/test_results.py::test_results_of_the_old_layout_are_named_left_and_reused"),
    held_by("contacts without a contact head", STOPS, "workflow/test_results.py::test_contacts_without_a_contact_head_stop_before_anything_runs"),
    held_by("metadata that matches no record", "the report job shows ids of both sides", "unit/sequences/test_metadata.py::test_metadata_that_matches_no_record_is_an_error_that_shows_both_sides"),
    held_by("malformed values of a checkpoint's config.json", "one line that names the field, before anything is built", "unit/checkpoints/test_malformed.py::test_a_field_of_config_json_that_makes_no_sense_is_named"),
    held_by("a checkpoint whose pickle would inflate to 4 GB", "refused before it is inflated", "unit/checkpoints/test_malformed.py::test_a_record_that_inflates_beyond_measure_is_refused_before_it_does"),
    held_by("model: a path with nothing there", STOPS, "workflow/test_workflow.py::test_config_mistakes_are_named_before_anything_runs"),
    held_by("layer 99 of a model by path", "the embed job names it", "scripts/test_programs.py::test_bad_input_is_one_line_that_names_it_and_leaves_nothing"),
    held_by("any sheet (hypothesis)", "read as it stands, or refused by name", "faults/test_any_input.py::test_any_sample_sheet_is_read_as_it_stands_or_refused_by_name"),
    held_by("any configuration (hypothesis)", "taken, or refused by its key", "faults/test_any_input.py::test_any_config_is_taken_or_refused_by_its_key"),
]  # fmt: skip


@pytest.mark.parametrize("row", SHEETS, ids=str)
def test_a_sheet(tmp_path, monkeypatch, seen, row):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "samples.tsv").write_bytes(row.given)
    from pathlib import Path

    with pytest.raises(ValueError) as error:
        table = read_sample_sheet(Path("samples.tsv"))
        for line, cells in zip(table.index, table.to_dict("records"), strict=True):
            check(cells, SAMPLES_SCHEMA, f"samples.tsv, line {line}")
    assert row.words in str(error.value) and "samples.tsv" in str(error.value)
    seen(row, str(error.value))


@pytest.mark.parametrize("row", CONFIGS, ids=str)
def test_a_configuration(seen, row):
    with pytest.raises(ValueError) as error:
        value = read_config(row.given, SCHEMA)
        find_model(value["model"])
        check_layers("demo", 6, value["layers"])
    assert row.words in str(error.value)
    seen(row, str(error.value))


@pytest.mark.parametrize("row", SNAKEMAKE, ids=str)
def test_through_snakemake(tmp_path, seen, row):
    project, (path, setting) = Project(tmp_path), row.given
    project.write_samples(s=proteins(2))
    (tmp_path / "samples.tsv").write_text(f"sample\tfasta\ns\t{path}\n")
    done = project.fails("--dry-run", config=(setting,) if setting else ())
    (line,) = {line for line in done.output.splitlines() if row.words in line}
    assert not (tmp_path / "results").exists()
    seen(row, line)
