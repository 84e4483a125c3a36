"""The programs as a user calls them: help, one line for bad input, nothing half-written."""

import os
import signal
import subprocess
import sys

import pytest
from conftest import PROGRAMS

SCRIPTS = sorted(PROGRAMS.glob("[!_]*.py"))


def process(folder, name, arguments):
    """Run a program as a process of its own, as a user does."""
    command = [sys.executable, str(PROGRAMS / name), *arguments.split()]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_help_tells_what_the_program_does(tmp_path, script):
    done = process(tmp_path, script.name, "--help")
    assert done.returncode == 0 and len(done.stdout.splitlines()) > 8


def test_fasta_to_embeddings_by_hand_without_an_install(tmp_path):
    (tmp_path / "a.fasta").write_text(">x\nMKVLLA\n>y\nmkvlla*\n>z\nGGGSGGG\n>bad\nM*J\n")
    chunks = "--chunks 1.fasta --manifest m.parquet --rejected r.tsv --counts c.json"
    done = process(tmp_path, "chunk_fasta.py", f"--sample s a.fasta {chunks}")
    assert (
        "4 records of 1 samples: 3 accepted, 0 replaced, 0 truncated, 0 split, 1 rejected; 2 unique sequences"
        in done.stdout
    )
    done = process(tmp_path, "embed_chunk.py", "--fasta 1.fasta --model demo --out 1.arrow --stats 1.json")
    assert done.returncode == 0, done.stderr
    assert "residues/s" in done.stderr and "Traceback" not in done.stderr
    done = process(tmp_path, "merge_sample.py", "--manifest m.parquet --sample s --chunks 1.arrow --out s.parquet")
    assert done.stdout == "embeddings: 3, samples: 1\n"
    done = process(
        tmp_path,
        "validate.py",
        "--sample s a.fasta s.parquet --manifest m.parquet --stats 1.json --model demo --table v.tsv --summary v.json",
    )
    assert done.stdout == "3 rows checked, 2 sequences compared: passed\n"


def test_nucleotides_to_proteins_by_hand(tmp_path, program):
    (tmp_path / "n.fasta").write_text(">a\nATGGCCTRA\n>rna\nAUG\n")
    options = "--genetic-code 4 --window none --ambiguous-codons skip"
    done = program("translate", "--fasta", "n.fasta", "--out", "p.fasta", "--table", "t.tsv", *options.split())
    assert done.out == "n.fasta: 2 records, 1 of them rejected; 6 proteins from six frames of 1 windows\n"
    assert (tmp_path / "p.fasta").read_text().startswith(">aF1 nt=1-9\nMA\n>aF2 nt=1-9\nWP\n")
    assert (tmp_path / "t.tsv").read_text() == (
        "id\tline\tlength\twindows\tkept\treason\na\t1\t9\t1\t6\t\n"
        "rna\t3\t3\t0\t0\tcharacters that are not nucleotides of DNA: 'U'; this is RNA, write T for U\n"
    )


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("chunk_fasta.py", "--sample s nowhere.fasta {chunk}", "nowhere.fasta"),
        ("chunk_fasta.py", "--sample s text.txt {chunk}", "text.txt, line 1: not FASTA"),
        ("chunk_fasta.py", "--sample s twice.fasta {chunk}", "twice.fasta, line 3: id 'a' is already on line 1"),
        ("chunk_fasta.py", "--sample s bad.fasta --on-invalid fail {chunk}", "bad.fasta, line 1: record 'b'"),
        (
            "translate.py",
            "--fasta protein.fasta {translate}",
            "line 1: record 'p': characters that are not nucleotides of DNA: 'L' 'E'",
        ),
        ("translate.py", "--fasta dna.fasta --genetic-code 7 {translate}", "genetic_code: NCBI has no table 7; give"),
        ("translate.py", "--fasta dna.fasta --window 2 {translate}", "window: 2 nucleotides are less than a codon"),
        ("translate.py", "--fasta dna.fasta {translate}", "dna.fasta, line 3: id 'n' is already on line 1"),
        ("embed_chunk.py", "--fasta ok.fasta --model esm2_8M {embed}", "model: 'esm2_8M' is neither a known name"),
        ("embed_chunk.py", "--fasta ok.fasta --model no/such.pt {embed}", "no/such.pt does not exist"),
        ("embed_chunk.py", "--fasta ok.fasta --model text.txt.pt {embed}", "text.txt.pt: "),
        ("embed_chunk.py", "--fasta ok.fasta --model demo --layers 99 {embed}", "repr_layers: 99 is out of range"),
        ("embed_chunk.py", "--fasta ok.fasta --model demo --tokens-per-pack 2 {embed}", "tokens_per_pack: 2"),
        (
            "embed_chunk.py",
            "--fasta ok.fasta --model demo --attention flash-attn {embed}",
            "attention: flash-attn cannot",
        ),
        ("embed_chunk.py", "--fasta bad.fasta --model demo {embed}", "bad.fasta, line 1: record 'b' is empty or has"),
        ("embed_chunk.py", "--fasta changed.fasta --model demo {embed}", "does not match its digest"),
        (
            "merge_sample.py",
            "--manifest text.txt --sample s --chunks x --out s.parquet",
            "text.txt: not a whole manifest",
        ),
        (
            "export_sample.py",
            "--embeddings text.txt --manifest text.txt --sample s --pt s.pt",
            "text.txt: not a whole manifest",
        ),
        ("download_model.py", "--model esm2 --out x.pt", "--model: 'esm2' is not one of esm2_t6_8M_UR50D"),
    ],
)
def test_bad_input_is_one_line_that_names_it_and_leaves_nothing(tmp_path, program, name, arguments, message):
    files = {
        "text.txt": "not FASTA at all\n",
        "text.txt.pt": "not a checkpoint\n",
        "ok.fasta": ">a\nMKV\n",
        "protein.fasta": ">p\nMKVLLE\n",
        "dna.fasta": ">n\nATG\n>n\nATG\n",
        "twice.fasta": ">a\nMKV\n>a\nMK\n",
        "bad.fasta": ">b\nMJ\n",
        "changed.fasta": ">SQ.aKF498dAxcJAqme6QYQ7EZ07-fiw8Kw2 s|a\nMKV\n",
    }
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    arguments = arguments.format(
        chunk="--chunks 1.fasta --manifest m.parquet --rejected r.tsv --counts c.json",
        embed="--out o --stats j",
        translate="--out o --table t",
    )
    done = program(name.removesuffix(".py"), *arguments.split())
    assert done.status == 1
    assert message in done.last and f"{name}: error: " in done.last and "Traceback" not in done.err
    assert {p.name for p in tmp_path.iterdir()} == set(files)


@pytest.mark.parametrize(
    "option",
    ["--embeddings", "--h5ad", "--pt", "--h5 mean_6", "--npy mean_6", "--skbio mean_6", "--residues logits", "--ids"],
)
def test_a_path_of_every_sample_is_refused_with_its_option(program, option):
    others = "" if option == "--embeddings" else "--embeddings {sample}.parquet"
    arguments = f"{others} --manifest no.parquet --sample s --sample t --ids {{sample}}.txt {option} same"
    done = program("export_sample", *arguments.split())
    assert done.status == 1 and f"error: {option.split()[0]}: same would be the file of every sample" in done.last


def test_a_process_ends_as_its_function_does(tmp_path, program):
    arguments = "--sample s nowhere.fasta --chunks 1.fasta --manifest m.parquet --rejected r.tsv --counts c.json"
    done, called = process(tmp_path, "chunk_fasta.py", arguments), program("chunk_fasta", *arguments.split())
    said = [line for line in done.stderr.splitlines() if " INFO " not in line]  # such lines have the time
    assert (done.returncode, done.stdout, said) == (called.status, called.out, [called.last])
    assert done.returncode == 1


@pytest.mark.parametrize("name", ["chunk_fasta.py", "embed_chunk.py", "merge_sample.py", "export_sample.py"])
def test_without_room_it_is_one_line_and_nothing_half_written_and_with_room_it_passes(tmp_path, program, name):
    (tmp_path / "a.fasta").write_text("".join(f">{i}\n{'MKVLLAGG' * i}\n" for i in range(1, 40)))
    steps = {
        "chunk_fasta.py": "--sample s a.fasta --chunks 1.fasta --manifest m.parquet --rejected r.tsv --counts c.json",
        "embed_chunk.py": "--fasta 1.fasta --model demo --out 1.arrow --stats 1.json",
        "merge_sample.py": "--manifest m.parquet --sample s --chunks 1.arrow --out s.parquet",
        "export_sample.py": "--embeddings s.parquet --manifest m.parquet --sample s --h5 mean_6 s.h5 "
        "--npy mean_6 s.npy --ids s.txt --skbio mean_6 s.skbio.h5 --h5ad s.h5ad --pt s.pt --chunks 1.fasta",
    }
    for step, arguments in steps.items():
        if step == name:
            before = set(tmp_path.iterdir())
            done = program(step.removesuffix(".py"), *arguments.split(), most_bytes=3000)
            assert done.status == 1 and "Traceback" not in done.err
            assert "error: [Errno 27] File too large; make room and run again: '" in done.last
            assert set(tmp_path.iterdir()) == before
        done = program(step.removesuffix(".py"), *arguments.split())
        assert done.status == 0, done.err
        if step == name:
            break


def test_a_second_sigterm_lets_the_clean_up_of_the_first_end(tmp_path):
    """Interrupted, it would close files that a thread still writes."""
    program = """
import argparse, sys, time
import _program

def work(args):
    try:
        print("works", flush=True)
        time.sleep(60)
    finally:
        print("cleans up", flush=True)
        time.sleep(1)
        print("clean", flush=True)

sys.exit(_program.run(argparse.ArgumentParser(), work, []))
"""
    command = [sys.executable, "-c", program]
    environment = os.environ | {"PYTHONPATH": str(PROGRAMS)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as running:
        for said in ("works\n", "cleans up\n"):
            assert running.stdout.readline() == said
            running.send_signal(signal.SIGTERM)
        assert running.stdout.read() == "clean\n"
    assert running.returncode == 143
