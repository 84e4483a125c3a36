"""Configuration values and the sample sheet, before a schema judges them."""

import ast
import contextlib
import functools
import hashlib
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import yaml

from ..system.sheets import read_sheet

NUCLEOTIDES_PER_RESIDUE = 3  # as if one of six frames had no stop; of windows of viral genomes 0.86 had none


def coerced(value: Any, schema: dict) -> Any:  # noqa: ANN401
    """Return a config value with the types of its JSON schema: a command line gives strings inside lists and objects.

    A string is read as YAML where the schema does not want a string, and a single value is a list of one.
    """
    if schema.get("type") == "object" and isinstance(value or {}, dict):
        properties = schema["properties"]
        return {key: coerced(item, properties.get(key, {})) for key, item in dict(value or {}).items()}
    if schema.get("type") == "array":
        value = _read_yaml(value) if isinstance(value, str) else value
        return [coerced(item, schema["items"]) for item in (value if isinstance(value, list) else [value])]
    if isinstance(value, str) and schema.get("type") != "string":
        value = _read_yaml(value)
    if isinstance(value, str) and any(option.get("type") == "number" for option in schema.get("oneOf", ())):
        with contextlib.suppress(ValueError):
            return float(value)  # YAML 1.1 takes 1e-5 for a string
    return value


def _read_yaml(text: str) -> Any:  # noqa: ANN401
    """Return what `text` is in YAML; itself where it is none, and the schema says what is wrong with it."""
    with contextlib.suppress(yaml.YAMLError):
        return yaml.safe_load(text)
    return text


def read_sample_sheet(sheet: Path) -> pd.DataFrame:
    """Return the sample sheet (TSV), every cell as text, so that `NA` and `001` stay what they are.

    The index has the numbers of the lines.

    Raises:
        ValueError: no such file, no text, no row, a row or a cell too few or too many, or a sample that stands twice.
    """
    if not sheet.exists():
        raise ValueError(f"samples: there is no sample sheet {sheet}; give a TSV with the columns sample, fasta")
    table = read_sheet(sheet)
    if table.empty:
        raise ValueError(f"{sheet}: no sample in it; each row has a sample and its fasta")
    for line in table.index[table["sample"].duplicated()] if "sample" in table else ():
        name = table.loc[line, "sample"]
        raise ValueError(f"{sheet}, line {line}: sample {name!r} stands in more than one row; names must differ")
    return table


def check(value: dict, schema: dict, where: str) -> None:
    """Raise ValueError where `value` is not what its JSON schema wants: where it stands, what is wrong, what is wanted.

    Only the first mistake is named, and the remedy is the schema's own description.
    """
    error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema).iter_errors(value))
    if error is None:
        return
    wanted = schema
    for key in error.absolute_path:
        wanted = wanted.get("properties", {}).get(key, wanted)  # an item of a list has no description of its own
    place = "".join(f", {key}" for key in error.absolute_path)
    raise ValueError(f"{where}{place}: {error.message} ({wanted['description'].removesuffix('.')})")


def fasta_bytes(fastas: Iterable[str]) -> int:
    """Return the bytes of FASTA files, which are not read; gzip is taken to halve them.

    Raises:
        FileNotFoundError: a file that is not there (yet).
    """
    return sum(Path(fasta).stat().st_size * (2 if fasta.endswith(".gz") else 1) for fasta in fastas)


def estimated_chunks(fastas: Iterable[str], residues_per_chunk: int) -> int:
    """Return a number of chunks from the sizes of FASTA files.

    Raises:
        ValueError: a file that is not there (yet).
    """
    try:
        return max(1, -(-fasta_bytes(fastas) // residues_per_chunk))
    except FileNotFoundError as error:
        raise ValueError(
            f"there is no {error.filename}; mend the sample sheet, or set `chunks` if a rule makes the file"
        ) from error


def earlier_files(paths: Sequence[str], own: Path) -> list[Path]:
    """Return the Parquet files that `reuse` names: files, or folders of results (or of `embeddings` in them).

    Args:
        paths: values of the key `reuse`.
        own: folder of results of this run.

    Raises:
        ValueError: nothing there, or results of this very run, which it would remove before it reads them.
    """
    files = []
    for path in map(Path, paths):
        here = [path] if path.suffix == ".parquet" else sorted(path.glob("embeddings/*.parquet"))
        here = here or sorted(path.glob("*.parquet"))
        if not here or not here[0].exists():
            raise ValueError(f"reuse: there are no embeddings at {path}; give a Parquet file or a folder of results")
        files += here
    for file in files:
        if file.resolve().is_relative_to(own.resolve()):
            raise ValueError(
                f"reuse: {file} is where this run writes its own results; move it first "
                f"(`mv {own} earlier`, then reuse: [earlier]), or run in another folder"
            )
    return list(dict.fromkeys(files))


def code_version(program: Path) -> str:
    """Return a digest of a program and of all modules, beside it and of this library, that it imports at any depth."""
    seen: dict[Path, bytes] = {}
    queue = [program]
    while queue:
        file = queue.pop()
        if file not in seen:
            seen[file] = file.read_bytes()
            queue += _own_imports(file, seen[file])
    return hashlib.sha256(b"".join(seen[file] for file in sorted(seen))).hexdigest()[:12]


@functools.cache
def _own_imports(file: Path, text: bytes) -> list[Path]:
    """Return the modules, of this library and beside the file, that a file imports, at the top or in a function."""
    workflow = Path(__file__).parents[2]
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [file.with_name(f"{alias.name}.py") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            folder = file.parents[node.level - 1] if node.level else workflow
            module = folder.joinpath(*(node.module or "").split("."))
            found += [module.with_suffix(".py"), module / "__init__.py"]
            found += [module / f"{alias.name}.py" for alias in node.names]
    return [path for path in found if path.is_file()]


def put_running_python_first() -> None:
    """Make `python` in child processes the interpreter of this one, also where its environment is not activated."""
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
