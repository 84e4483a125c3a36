"""The library's packages: each imports what its docstring allows, imports run one way, and few import torch."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from conftest import ROOT

WORKFLOW = ROOT / "workflow"
LIBRARY = WORKFLOW / "packed_esm"
FAMILIES = LIBRARY / "model" / "families"
LINES_OF_A_FAMILY = 300  # that are not blank
PACKAGES = sorted(path.parent.name for path in LIBRARY.glob("*/__init__.py"))
WITH_TORCH = {"checkpoints", "embedding", "kernels", "model", "validation"}
FACES = {"esm2_flash", "packed_attention"}  # they hand on names, and nothing imports them
MODULES = sorted(LIBRARY.rglob("*.py"))
PROGRAMS = sorted((WORKFLOW / "scripts").glob("[!_]*.py"))
WITHOUT_TORCH = [  # what starts in a fraction of a second
    "embedding.packing",
    "embedding.options",
    "planning.arguments",
    "planning.job_resources",
    "planning.stages",
    "planning.summary",
    "report.page",
    "sequences.chunking",
    "sequences.translation",
    "store.export",
    "store.merge",
    "store.merge_residues",
]


def place(file: Path) -> str:
    """Return the package of a module, or its own name where it stands beside the packages."""
    return file.relative_to(LIBRARY).with_suffix("").parts[0]


def imported(file: Path) -> set[Path | str]:
    """Return the modules of the library that a module imports, at the top or in a function, and the names of others."""
    found: set[Path | str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            module = file.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            candidates = [module.with_suffix(".py"), *(module / f"{alias.name}.py" for alias in node.names)]
            found |= {path for path in candidates if path.is_file()} or {module / "__init__.py"}
    return found


def allowed(package: str) -> set[str]:
    """Return what the docstring of a package says that it may import."""
    text = " ".join(ast.get_docstring(ast.parse((LIBRARY / package / "__init__.py").read_text())).split())
    return set(re.search(r"May import: ([\w, ]+)\.$", text)[1].split(", "))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_what_its_docstring_says_and_nothing_else(package):
    found = set()
    for file in (LIBRARY / package).rglob("*.py"):
        names = {place(one) if isinstance(one, Path) else one for one in imported(file)}
        found |= names & {*PACKAGES, *FACES, "errors", "families", "options", "torch", "triton"} - {package}
    assert found - {"triton"} == allowed(package)
    assert "triton" not in found or package == "kernels"


def test_imports_run_one_way():
    between = {package: allowed(package) & set(PACKAGES) for package in PACKAGES}
    assert list(TopologicalSorter(between).static_order())  # raises CycleError
    modules = {file: {one for one in imported(file) if isinstance(one, Path)} for file in MODULES}
    assert list(TopologicalSorter(modules).static_order())


def test_only_the_packages_that_compute_may_import_torch():
    assert {package for package in PACKAGES if "torch" in allowed(package)} == WITH_TORCH
    for file in LIBRARY.glob("*.py"):
        assert "torch" not in imported(file), file


def test_few_modules_stand_beside_the_packages_and_every_one_says_what_it_is():
    assert len([file for file in LIBRARY.glob("*.py") if file.stem != "__init__"]) <= 10
    assert all(ast.get_docstring(ast.parse(file.read_text())) for file in MODULES)


def test_the_reference_shares_nothing_with_what_it_judges():
    files = sorted((LIBRARY / "validation").glob("reference*.py"))
    assert [file.stem for file in files] == ["reference", "reference_folder", "reference_model"]
    of_families = sorted(FAMILIES.glob("*/reference.py"))
    assert [file.parent.name for file in of_families] == ["esmc"]  # that of ESM-2 and ESM-1b is in validation
    ours = {one for file in [*files, *of_families] for one in imported(file) if isinstance(one, Path)}
    assert ours <= set(files)


@pytest.mark.parametrize("folder", sorted(path.parent for path in FAMILIES.glob("*/__init__.py")), ids=lambda x: x.name)
def test_a_family_is_one_small_folder_that_no_module_outside_imports(folder):
    lines = [line for file in folder.glob("*.py") for line in file.read_text().splitlines() if line.strip()]
    assert 0 < len(lines) <= LINES_OF_A_FAMILY
    outside = [file for file in MODULES if FAMILIES not in file.parents]
    assert not [file for file in outside for one in imported(file) if isinstance(one, Path) and folder in one.parents]


def test_what_says_which_families_there_are_needs_no_torch():
    for file in FAMILIES.glob("*/__init__.py"):
        assert {place(one) for one in imported(file) if isinstance(one, Path)} <= {"families"}


def test_what_computes_nothing_starts_without_torch():
    code = "import sys; sys.path.insert(0, sys.argv[1])\n"
    code += "".join(f"import packed_esm.{module}\n" for module in WITHOUT_TORCH)
    code += "print([name for name in ('torch', 'esm') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code, str(WORKFLOW)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_names_that_other_code_imports_stay_where_they_are():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import packed_esm\n"
        "assert 'torch' not in sys.modules\n"
        "from packed_esm import ESM2WithFlashAttention, EmbedOptions, Embedder, load_esm2\n"
        "from packed_esm.esm2_flash import ESM2WithFlashAttention as same\n"
        "from packed_esm.packed_attention import FLASH_ATTN_AVAILABLE, create_position_ids_packed\n"
        "from packed_esm.packed_attention import flash_attn_varlen_wrapper\n"
        "assert same is ESM2WithFlashAttention and packed_esm.FLASH_ATTN_AVAILABLE is FLASH_ATTN_AVAILABLE\n"
        "assert packed_esm.flash_attn_varlen_wrapper is flash_attn_varlen_wrapper\n"
        "assert {name for name in packed_esm.__all__ if hasattr(packed_esm, name)} == {*packed_esm.__all__}\n"
        "assert {*packed_esm.__all__} <= {*dir(packed_esm)}"
    )
    subprocess.run([sys.executable, "-c", code, str(WORKFLOW)], check=True)
