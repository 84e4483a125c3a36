"""The page of a run: its input, its embeddings, their difference from fair-esm, and its speed."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import jinja2

from ..sequences.metadata import Metadata, match_metadata
from ..system.files import write_text
from ..system.versions import package_versions
from .colours import MAX_COLUMNS, Colouring, choose_colouring, columns_left_out
from .explorer import as_json, explorer_data
from .figures import plot_lengths, plot_stages, plot_throughput, plot_validation
from .neighbours import COUNT, MAX_EXACT, nearest_by_cosine
from .points import Points, choose_rows, plot_embeddings, read_points
from .run_files import Proteins, Run, RunFiles, read_proteins, read_run
from .summary import reference
from .tables import software, totals, worst_comparisons, worst_of_outputs

FIGURES = {
    "lengths": "Lengths",
    "pca": "Principal components",
    "umap": "UMAP",
    "validation": "Validation",
    "throughput": "Rate and fill of each embed job",
    "stages": "Seconds of each embed job",
}
HERE = Path(__file__).parent


@dataclass(frozen=True)
class PageOptions:
    """How the page looks, and what it says besides the results.

    Attributes:
        captions: folder with the caption of each figure, one sentence of plain text in an `.rst`.
        color_by: colour the proteins by this column of the metadata, or `key=value` of their descriptions.
        metadata: a sheet with a column `id`, `accession`, or UniProt's `Entry`.
        workflow_versions: {name: version} of what runs the workflow.
        stale: a sentence about files in the results that do not belong to this run.
    """

    captions: Path
    color_by: str = ""
    metadata: Path | None = None
    workflow_versions: Mapping[str, str] = field(default_factory=dict)
    stale: str = ""


def write_report(files: RunFiles, options: PageOptions, figures: Path, html: Path) -> None:
    """Draw the figures (PNG, in the folder `figures`) and write the page (HTML, one file, works offline).

    Raises:
        SheetError: a mistake in the metadata sheet, or it has no row of any protein.
        DamagedFileError: a file of the run is incomplete, or was changed.
    """
    run = read_run(files)
    rows = choose_rows(run)
    proteins = read_proteins(files, rows)
    metadata = match_metadata(proteins.drawn, options.metadata) if options.metadata else None
    colouring = choose_colouring(proteins.drawn, options.color_by, metadata)
    points = read_points(run, rows)
    paths = {name: figures / f"{name}.png" for name in FIGURES}
    _draw(run, proteins, points, colouring, paths)
    data = explorer_data(points, nearest_by_cosine(points.matrix), proteins.drawn, colouring, metadata)
    page = _template().render(
        figures={name: _figure(paths[name], title, options.captions) for name, title in FIGURES.items()},
        stale=options.stale,
        **_code(as_json(data)),
        **_input_section(run),
        **_embeddings_section(points, colouring, metadata),
        **_validation_section(run),
        **_work_section(run),
        **_provenance_section(run, options),
    )
    write_text(html, page)


def _draw(run: Run, proteins: Proteins, points: Points, colouring: Colouring, paths: Mapping[str, Path]) -> None:
    plot_embeddings(points, colouring, proteins.drawn["sample"].to_numpy(object), paths["pca"], paths["umap"])
    plot_lengths(paths["lengths"], proteins.lengths)
    plot_validation(paths["validation"], run.compared, run.validation["tolerance"])
    plot_throughput(paths["throughput"], run.stats)
    plot_stages(paths["stages"], run.stats)


def _code(data: str) -> dict[str, str]:
    """Return the page's style, script and data, and the policy by which a browser runs this script and no other."""
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src {_source(style)}; script-src {_source(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return {"style": style, "script": script, "data": data, "policy": policy}


def _source(text: str) -> str:
    """Return a text as a source of a content security policy: its hash."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


def _input_section(run: Run) -> dict:
    return {
        "counts": run.counts,
        "samples": run.files.samples,
        "rejected": run.rejected.to_dict("records"),
        "rejected_total": run.unusual,
        "rejected_path": run.files.rejected,
    }


def _embeddings_section(points: Points, colouring: Colouring, metadata: Metadata | None) -> dict:
    return {
        "points": points,
        "nearest": COUNT,
        "max_exact": MAX_EXACT,
        "legend": {"name": colouring.name, "entries": points.legend(colouring)},
        "metadata": metadata.matches() if metadata else "",
        "max_columns": MAX_COLUMNS,
        "left_out": columns_left_out(metadata) if metadata else 0,
    }


def _validation_section(run: Run) -> dict:
    return {
        "validation": run.validation,
        "reference": reference(run.validation),
        "worst": worst_comparisons(run.compared),
        "worst_of_outputs": worst_of_outputs(run.validation),
    }


def _work_section(run: Run) -> dict:
    return {"totals": totals(run.stats)}


def _provenance_section(run: Run, options: PageOptions) -> dict:
    here = package_versions() | dict(options.workflow_versions)
    return {"settings": run.validation["settings"], "software": software(run.stats, here)}


def _figure(path: Path, title: str, captions: Path) -> dict[str, str]:
    """Return title, caption and picture of a figure; the picture is part of the page."""
    caption = " ".join((captions / f"{path.stem}.rst").read_text(encoding="utf-8").split())
    source = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
    return {"title": title, "caption": caption, "source": source}


def _template() -> jinja2.Template:
    # Ids and descriptions come from FASTA headers, so everything is escaped.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")
