"""A program imports only what its work needs: what is absent after it has run, or after its library is imported."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT

WORKFLOW = ROOT / "workflow"
COMPILER = ("torch._dynamo", "torch._inductor", "sympy")  # of torch: seconds
FIGURES = ("matplotlib", "sklearn", "scipy", "umap", "numba")
OTHERS = ("transformers", "numpy.testing", "anndata", "snakemake", "Bio")
LIBRARIES = {  # what a program's one function imports, and what must be absent
    "embedding.job": (*COMPILER, *FIGURES, *OTHERS, "triton", "pandas", "h5py", "xxhash", "pyarrow.compute"),
    "embedding.reuse": (*COMPILER, *FIGURES, *OTHERS, "triton", "pandas"),
    "embedding.copying": ("torch", *FIGURES, *OTHERS, "pandas", "h5py", "xxhash"),
    "embedding.look_up": ("torch", *FIGURES, *OTHERS, "h5py", "xxhash"),
    "validation.run": (*COMPILER, *FIGURES, *OTHERS, "triton"),
    "sequences.chunking": ("torch", *FIGURES, *OTHERS, "h5py"),
    "sequences.translation": ("torch", *FIGURES, "pandas", "pyarrow", "h5py"),
    "store.merge": ("torch", *FIGURES, *OTHERS, "h5py"),
    "store.merge_residues": ("torch", *FIGURES, *OTHERS),
    "checkpoints.download": ("torch", *FIGURES, *OTHERS, "pandas", "pyarrow", "h5py"),
    "checkpoints.digest": ("torch", *FIGURES, *OTHERS, "numpy", "pandas", "pyarrow", "h5py"),
}


def imported_by(code, *arguments):
    """Return the names of the modules that a process has imported at its end."""
    code = f"import sys; sys.path.insert(0, sys.argv[1])\n{code}\nimport json; print(json.dumps([*sys.modules]))"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return set(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]))


@pytest.mark.parametrize("module", LIBRARIES)
def test_a_library_imports_nothing_that_it_does_not_use(module):
    modules = imported_by(f"import packed_esm.{module}", WORKFLOW)
    assert modules & {*LIBRARIES[module]} == set()


def test_an_embed_job_loads_a_model_and_writes_without_what_it_does_not_use(tmp_path):
    fasta = tmp_path / "c.fasta"
    fasta.write_text(">a\nMKTAYIAKQR\n")
    options = ["--fasta", fasta, "--out", tmp_path / "c.arrow", "--stats", tmp_path / "c.json"]
    options += ["--own-results", tmp_path, "--model", "demo", "--device", "cpu", "--threads", "1"]
    code = "import embed_chunk; assert embed_chunk.main(sys.argv[2:]) == 0"
    modules = imported_by(code, WORKFLOW / "scripts", *options)
    assert (tmp_path / "c.arrow").exists() and {"torch", "esm"} <= modules
    assert modules & {*LIBRARIES["embedding.job"]} == set()


def test_garbage_is_collected_again_after_the_imports():
    code = "import gc, _program\nwith _program.importing():\n    assert not gc.isenabled()\n    import decimal\n"
    imported_by(code + "assert gc.isenabled() and gc.get_freeze_count()", WORKFLOW / "scripts")
    code = "import gc, _program\ntry:\n    with _program.importing():\n        import nowhere\n"
    imported_by(code + "except ImportError:\n    assert gc.isenabled()", WORKFLOW / "scripts")
