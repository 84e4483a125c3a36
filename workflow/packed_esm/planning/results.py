"""The files of results, and their paths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..outputs.table import RESIDUES
from .record import not_expected

FIRST_LAYOUT = ("results/embeddings", "results/manifest.parquet")  # of version 0.3.0
MOST_NAMED = 5  # files in a sentence
WITH_SEQUENCES = {"h5", "skbio"}  # formats that have something of the sequences themselves
OF_COLUMNS = {"h5", "npy", "skbio"}  # formats that have a file for each column


@dataclass(frozen=True)
class Results:
    """The results of one model.

    Attributes:
        folder: of these results.
        settings: of the run.
        samples: {name: FASTA path}, from the sample sheet.
        chunks: number of chunks.
        columns: of embeddings; needed for formats with one file per column.
        groups: of samples whose files one job merges; by default each sample is one.
    """

    folder: str
    settings: Mapping[str, Any]
    samples: Mapping[str, str]
    chunks: int
    columns: Sequence[str] = ()
    groups: Sequence[Sequence[str]] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", self.groups or [[sample] for sample in self.samples])

    @property
    def translated(self) -> bool:
        """Whether the proteins are translations of nucleotides."""
        return self.settings["input"] == "nucleotide"

    @property
    def proteins(self) -> dict[str, str]:
        """{sample: FASTA path of its proteins}."""
        return {
            sample: f"{self.folder}/translated/{sample}.fasta" if self.translated else fasta
            for sample, fasta in self.samples.items()
        }

    @property
    def embeddings(self) -> dict[str, str]:
        """{sample: path of its embeddings}."""
        return {sample: self.embedding_file(sample) for sample in self.samples}

    @property
    def features(self) -> list[str]:
        """The names of the outputs with values of each residue, of RESIDUES."""
        return residue_features(self.settings)

    @property
    def residues(self) -> dict[tuple[str, str], str]:
        """{(sample, feature): path} of the residue files."""
        pairs = [(sample, feature) for sample in self.samples for feature in self.features]
        return {(sample, feature): self.residue_file(sample, feature) for sample, feature in pairs}

    @property
    def has_linked_residues(self) -> bool:
        """Whether the files for each residue are links to those of the chunks."""
        return self.settings["residue_files"] == "linked"

    @property
    def rows_per_file(self) -> int | None:
        """Most rows in a part of a sample's embeddings; None if they are one file."""
        return None if self.settings["rows_per_file"] == "none" else self.settings["rows_per_file"]

    def residue_values(self) -> list[str]:
        """Return the files that values of each residue lie in."""
        if not self.has_linked_residues:
            return list(self.residues.values())
        return [path for feature in self.features for path in self.chunk_files(f"{feature}.h5")]

    def embedding_file(self, sample: str) -> str:
        """Return the path of the embeddings of a sample: a file, or a folder of parts."""
        return f"{self.folder}/embeddings/{sample}.parquet"

    def residue_file(self, sample: str, feature: str) -> str:
        """Return the path of the values of a feature for each residue of a sample."""
        return f"{self.folder}/residues/{sample}.{feature}.h5"

    def exported_residues(self, sample: str) -> dict[str, str]:
        """Return {feature: path} of the residue files whose values go into fair-esm's .pt files of a sample."""
        features = self.features if "pt" in self.settings["formats"] else []
        return {feature: self.residue_file(sample, feature) for feature in features}

    def exported_chunks(self) -> list[str]:
        """Return the FASTA files of the chunks, for formats that have something of the sequences themselves."""
        return self.chunk_files("fasta") if WITH_SEQUENCES & set(self.settings["formats"]) else []

    def exports(self, sample: str) -> list[tuple[str, ...]]:
        """Return the options of export_sample.py for each file of `formats`; the last word of an option is the path."""
        stem = f"{self.folder}/embeddings/{sample}"
        options = {
            "h5": [("--h5", column, f"{stem}.{column}.h5") for column in self.columns],
            "npy": [
                *(("--npy", column, f"{stem}.{column}.npy") for column in self.columns),
                *(("--ids", f"{stem}.{column}.ids.txt") for column in self.columns),
            ],
            "skbio": [("--skbio", column, f"{stem}.{column}.skbio.h5") for column in self.columns],
            "h5ad": [("--h5ad", f"{stem}.h5ad")],
            "pt": [("--pt", f"{stem}.pt")],
        }
        return [option for name in options if name in self.settings["formats"] for option in options[name]]

    def exported(self) -> list[str]:
        """Return the files of `formats`."""
        return [path for sample in self.samples for *_, path in self.exports(sample)]

    @property
    def validation(self) -> str:
        """The summary of the validation."""
        return f"{self.folder}/validation/summary.json"

    @property
    def variants(self) -> list[str]:
        """The scores of variants and their summary, if there is a table."""
        names = ("variants.tsv", "variants.json") if self.settings["variants"] else ()
        return [f"{self.folder}/{name}" for name in names]

    @property
    def page(self) -> str:
        """The report."""
        return f"{self.folder}/report.html"

    def final(self) -> list[str]:
        """Return the final files of a run."""
        return [
            *self.embeddings.values(),
            *self.residues.values(),
            *self.exported(),
            *self.variants,
            self.validation,
            self.page,
        ]

    def chunk_files(self, ending: str) -> list[str]:
        """Return the files of all chunks with this ending: `fasta`, `arrow`, `json`, or that of a feature."""
        return [f"{self.folder}/chunks/{i + 1}-of-{self.chunks}.{ending}" for i in range(self.chunks)]

    def statistics(self) -> list[str]:
        """Return the paths of the statistics of the embed jobs."""
        return self.chunk_files("json")

    def expected(self) -> list[str]:
        """Return all files and folders that a run creates."""
        endings = ["fasta", "arrow", "json", *(f"{feature}.h5" for feature in self.features if not self._is_merged())]
        names = (
            "settings.json",
            "settings",
            "figures",
            "validation",
            "manifest.parquet",
            "earlier.json",
            "rejected.tsv",
            "counts.json",
        )
        translated = [f"translated/{sample}.{end}" for sample in self.samples for end in ("fasta", "tsv", "json")]
        return [
            *(path for ending in endings for path in self.chunk_files(ending)),
            *(f"{self.folder}/{name}" for name in [*names, *(translated if self.translated else [])]),
            *self.final(),
        ]

    def _is_merged(self) -> bool:
        """Whether whole residue files have copies of all that the chunks' files have, which then are of no use."""
        merged = [Path(path) for path in self.residues.values()]
        if self.has_linked_residues or not all(path.exists() for path in merged):
            return False
        newest = max((path.stat().st_mtime for path in Path(self.folder, "chunks").glob("*.h5")), default=0)
        return all(path.stat().st_mtime >= newest for path in merged)

    def not_expected(self) -> list[str]:
        """Return the files of other samples, settings or numbers of chunks, sorted."""
        return not_expected(Path(self.folder), self.expected())

    def stale(self) -> str:
        """Return a sentence that names the files of `not_expected`; empty if none."""
        files = self.not_expected()
        more = f" and {len(files) - MOST_NAMED:,} more" if len(files) > MOST_NAMED else ""
        named = ", ".join(files[:MOST_NAMED])
        return f"{len(files):,} files do not belong to this configuration: {named}{more}" if files else ""

    def first_layout(self) -> list[str]:
        """Return the results of version 0.3.0 in the folder `results` itself."""
        if self.folder == "results":  # this run's own results are there
            return []
        return [name for name in FIRST_LAYOUT if Path(name).exists()]


def residue_features(settings: Mapping[str, Any]) -> list[str]:
    """Return the names of the requested outputs with values of each residue, in the order of RESIDUES."""
    requested = {
        name: name in settings["include"] if output.in_include else settings["per_residue"] != "none"
        for name, output in RESIDUES.items()
    }
    return [name for name, is_requested in requested.items() if is_requested]
