"""What the code imports is what pyproject.toml, the conda environments and docs/parts.md name."""

import ast
import contextlib
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

WORKFLOW = ROOT / "workflow"
LIBRARY = WORKFLOW / "packed_esm"
PROGRAMS = sorted((WORKFLOW / "scripts").glob("[!_]*.py"))
IMPORTED_AS = {  # where the names differ
    "Bio": "biopython",
    "esm": "fair-esm",
    "sklearn": "scikit-learn",
    "umap": "umap-learn",
    "yaml": "pyyaml",
}
BRINGS = {"triton": "torch"}  # torch for CUDA requires the triton that it was built with
CONDA = {
    "pytorch-cpu": "torch",
    "pytorch-gpu": "torch",
    "matplotlib-base": "matplotlib",
    "python-duckdb": "duckdb",
    "python-xxhash": "xxhash",
}


def imports(file: Path) -> tuple[set[str], set[Path]]:
    """Return the distributions that a module imports, at the top or in a function, and the modules of ours."""
    others, ours = set(), set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            modules = [WORKFLOW / alias.name for alias in node.names]
            ours |= {file.with_name(f"{alias.name}.py") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            folder = file.parents[node.level - 1] if node.level else WORKFLOW
            module = folder.joinpath(*(node.module or "").split("."))
            ours |= {module.with_suffix(".py"), *(module / f"{alias.name}.py" for alias in node.names)}
            modules = [] if node.level else [WORKFLOW / node.module]
        else:
            continue
        for module in modules:
            first = module.name.split(".")[0]
            beside = first.startswith("_") and file.with_name(f"{first}.py").exists()
            if first not in {*sys.stdlib_module_names, "packed_esm"} and not beside:
                name = IMPORTED_AS.get(first, first)
                others.add(BRINGS.get(name, name))
    return others, {path for path in ours if path.is_file()}


def all_imports(files: list[Path]) -> set[str]:
    """Return the distributions that modules import at any depth."""
    found, seen, queue = set(), set(), list(files)
    while queue:
        file = queue.pop()
        if file not in seen:
            seen.add(file)
            others, ours = imports(file)
            found |= others
            queue += ours
    return found


def requirements(lines: list[str]) -> dict[str, str]:
    """Return {name: bounds} of requirements of pip or conda."""
    matches = [re.fullmatch(r"([\w-]+)\s*(.*)", line) for line in lines]
    return {CONDA.get(match[1].lower(), match[1].lower()): match[2] for match in matches}


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pyproject() -> dict[str, str]:
    return requirements(project()["dependencies"])


def environment(name: str) -> dict[str, str]:
    """Return {name: bounds} of a conda environment, with what Snakemake's post-deploy script adds by pip."""
    dependencies = yaml.safe_load((ROOT / "envs" / f"{name}.yaml").read_text())["dependencies"]
    script = (ROOT / "envs" / f"{name}.post-deploy.sh").read_text()
    return requirements(dependencies + re.findall(r"^python -m pip install --no-deps (\S+)$", script, re.MULTILINE))


def constraints() -> dict[str, str]:
    """Return {name: bounds; marker} of envs/constraints.txt."""
    lines = (ROOT / "envs/constraints.txt").read_text().splitlines()
    return requirements([line for line in lines if not line.startswith("#")])


OPTIONAL = {"transformers"}  # the reference of one family


def test_what_only_the_reference_of_a_family_needs_is_an_extra():
    references = [LIBRARY / "model/families/esmc/reference.py"]
    assert {one for file in references for one in imports(file)[0]} - set(pyproject()) == OPTIONAL
    assert set(requirements(project()["optional-dependencies"]["esmc"])) == OPTIONAL
    others = [file for file in LIBRARY.rglob("*.py") if file not in references]
    assert not OPTIONAL & {one for file in others for one in imports(file)[0]}


def test_pyproject_names_what_the_code_imports_and_nothing_else():
    rules = "".join(path.read_text() for path in WORKFLOW.rglob("*.smk"))
    assert "from snakemake" in rules
    assert set(pyproject()) == all_imports([*LIBRARY.rglob("*.py"), *PROGRAMS]) - OPTIONAL | {"snakemake"}


TRITON = {"triton", "c-compiler", "cuda-cudart-dev"}  # it compiles its launcher in C, with cuda.h
ENVIRONMENTS = {  # {name: the programs that run in it, and what it has besides their imports}
    "cpu": ([path.stem for path in PROGRAMS], set()),
    "gpu": (["embed_chunk", "validate"], TRITON),
    "flash-attn": (["embed_chunk", "validate"], TRITON | {"flash-attn"}),
}


def test_every_conda_environment_is_tested():
    assert {path.stem for path in (ROOT / "envs").glob("*.yaml")} == set(ENVIRONMENTS)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_conda_environment_has_what_the_programs_of_its_rules_import(name):
    programs, further = ENVIRONMENTS[name]
    used = all_imports([WORKFLOW / "scripts" / f"{program}.py" for program in programs])
    assert used | further == set(environment(name)) - {"python", "pip"}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_bounds_of_a_conda_environment_are_those_of_pip(name):
    of_pip = pyproject()
    for package, bounds in environment(name).items():
        if package in of_pip and package != "torch":
            assert bounds == of_pip[package], package


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_conda_and_pip_install_the_same_torch_and_triton(name):
    for package in {"torch", "triton"} & set(environment(name)):
        pinned = constraints()[package].removeprefix("==").split(";")[0]
        assert pinned.startswith(environment(name)[package].removeprefix("=") + "."), package


def test_no_conda_environment_has_packages_of_pip():
    """Snakemake creates an environment from its pin file alone, if there is one; pip packages would be missing."""
    for path in (ROOT / "envs").glob("*.yaml"):
        assert all(isinstance(entry, str) for entry in yaml.safe_load(path.read_text())["dependencies"])


def test_what_has_no_wheel_on_macos_is_marked():
    """Wheels of all pins were looked for on linux-aarch64 and macOS: docs/conda.md."""
    tests = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["test"]
    marked = [line for line in [*pyproject().values(), *constraints().values(), *tests] if ";" in line]
    assert marked == ["==3.7.1; platform_system == 'Linux'", "triton>=3.6; platform_system == 'Linux'"]


def test_rules_name_the_environment_of_their_programs():
    for path in (WORKFLOW / "rules").glob("*.smk"):
        for rule in re.split(r"\n\s*rule ", path.read_text())[1:]:
            program = re.search(r'program=in_clone\("scripts/(\w+)\.py"\)', rule)[1]
            wanted = "EMBED_ENV" if program in {"embed_chunk", "look_up", "validate", "score_variants"} else "CPU_ENV"
            assert re.search(r"conda:\s+(\w+)", rule)[1] == wanted, program


def test_every_dependency_is_pinned():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    optional = requirements([line.split(";")[0] for lines in extras.values() for line in lines])
    pins = constraints()
    assert all(pins.get(name, "").startswith("==") for name in [*pyproject(), *optional])


def brought_along(names: set[str]) -> set[str]:
    """Return the installed packages that installing others brings along here, with those."""
    found, queue = set(), [(name, "") for name in names]
    while queue:
        name, extra = queue.pop()
        with contextlib.suppress(PackageNotFoundError):
            needed = [Requirement(line) for line in metadata(name).get_all("Requires-Dist", ())]
            wanted = [one for one in needed if one.marker is None or one.marker.evaluate({"extra": extra})]
            new = {(canonicalize_name(one.name), more) for one in wanted for more in ("", *one.extras)} - found
            found |= new | {(canonicalize_name(name), extra)}
            queue += new
    return {name for name, _ in found}


def test_every_package_that_an_install_brings_along_is_pinned():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    optional = requirements([line.split(";")[0] for lines in extras.values() for line in lines])
    pins = {canonicalize_name(name) for name in constraints()}
    of_cuda = ("nvidia-", "cuda-")  # which of them torch brings depends on its build
    brought = brought_along({*pyproject(), *optional})
    assert {name for name in brought if not name.startswith(of_cuda)} <= pins


def test_docs_say_of_every_dependency_and_every_module_named_why_it_is_there():
    text = (ROOT / "docs/parts.md").read_text()
    taken, ours = text.split("## Ours")
    rows = [line.strip("| ").split(" | ") for line in taken.splitlines() if line.startswith("| ")]
    named = {name.lower() for _, sources, _ in rows for name in re.findall(r"`([\w-]+)`", sources)}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    optional = requirements([line.split(";")[0] for lines in extras.values() for line in lines])
    assert named - {"flash-attn", "varlen_attn"} == {*pyproject(), *optional}
    for row in (line for line in ours.splitlines() if line.startswith("| ")):
        for module in re.findall(r"`([a-z0-9_/]+)`", row.split(" | ")[1]):
            assert (LIBRARY / f"{module}.py").exists(), module
