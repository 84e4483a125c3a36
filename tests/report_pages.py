"""Pages of runs with random embeddings, as the workflow makes them, and what is in a page."""

import base64
import json
from html.parser import HTMLParser

import numpy as np
from conftest import ROOT
from packed_esm.outputs.bounds import tolerance as bounds
from packed_esm.report import explorer
from packed_esm.report.page import PageOptions, write_report
from packed_esm.report.run_files import RunFiles
from packed_esm.sequences.chunking import chunk_samples
from packed_esm.sequences.manifest import embedded, read_manifest
from packed_esm.sequences.options import ChunkOptions
from packed_esm.store.embeddings import SampleWriter, embedding_table
from packed_esm.system.files import write_json


def clusters(count, seed=0):
    rng = np.random.default_rng(seed)
    centres = 8 * rng.normal(size=(3, 24))
    return (centres[np.arange(count) % 3] + rng.normal(size=(count, 24))).astype(np.float32)


def job(**changed):
    stages = ("read", "load", "reuse", "warm_up", "embed", "write")
    return {
        "residues": 10,
        "reused_residues": 0,
        "reused_sequences": 0,
        "residues_per_second": 1.0,
        "fill": 0.5,
        "real_tokens": 1,
        "pack_tokens": 2,
        "seconds": dict.fromkeys(stages, 1.0),
        "peak_memory_mb": 100,
        "peak_gpu_memory_mb": None,
        "recomputed_in_fp32": [],
        "device": "cpu",
        "versions": {"torch": "9.8.7"},
    } | changed


class Page(HTMLParser):
    """What is in a page: tags, attributes, text, and the code by its element."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self.code, self.inside = [], [], "", {}, ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.inside = f"{tag} {dict(attrs).get('type', '')}".strip()
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_data(self, data):
        if self.inside in ("style", "script", "script application/json"):
            self.code[self.inside] = self.code.get(self.inside, "") + data
        else:
            self.text += data

    def handle_endtag(self, tag):
        self.inside = ""

    @property
    def data(self):
        """What the page's script reads."""
        return json.loads(self.code["script application/json"])


def write_page(folder, fasta, of_sequences=None, **options):
    """Write the page of one sample with random embeddings, from files as the workflow leaves them."""
    (folder / "s.fasta").write_text(fasta)
    paths = {name: folder / name for name in ("1-of-1.fasta", "manifest", "rejected.tsv", "counts.json", "stats.json")}
    chunk_samples(
        [("s", folder / "s.fasta")],
        [paths["1-of-1.fasta"]],
        *(paths[n] for n in ("manifest", "rejected.tsv", "counts.json")),
        ChunkOptions(embed_dim=64),
    )
    rows = embedded(read_manifest(paths["manifest"]))
    with SampleWriter(folder / "s.parquet", {"tokens_per_pack": 64, "layers": [6], "pooling": ["mean"]}) as writer:
        columns = {"mean_6": clusters(len(rows))}
        checksums = np.zeros(len(rows), np.uint32)
        writer.write(
            embedding_table(rows["digest"].tolist(), rows["length"], columns, checksums, ids=rows["id"].tolist())
        )
    write_json(paths["stats.json"], job())
    compared = rows.head(3)[["sample", "id", "length"]].assign(
        layer=6, relative_l2=1e-7, min_residue_cosine=1 - 1e-9, worst_residue=2, bit_equal=True
    )
    of_sequences = of_sequences or {}
    compared = compared.assign(**of_sequences)
    compared.to_csv(folder / "sequences.tsv", sep="\t", index=False)
    summary = {"sequences_compared": len(compared), "rows_checked": len(rows), "settings": {"model": "demo"}}
    summary |= {"tolerance": bounds("fp32"), "layers": [6], "bit_equal": True}
    summary |= {"shortest": 1, "longest": 9, "worst_relative_l2": 1e-7, "worst_residue_cosine": 1 - 1e-9}
    write_json(folder / "summary.json", summary | {f"worst_{name}": x for name, x in of_sequences.items()})
    files = RunFiles(
        samples=[("s", folder / "s.parquet")],
        manifest=paths["manifest"],
        counts=paths["counts.json"],
        rejected=paths["rejected.tsv"],
        stats=[paths["stats.json"]],
        validation=folder / "summary.json",
        validation_table=folder / "sequences.tsv",
    )
    look = PageOptions(captions=ROOT / "workflow/report", workflow_versions={"snakemake": "1.2.3"}, **options)
    write_report(files, look, folder / "figures", folder / "report.html")
    return (folder / "report.html").read_text()


def sequences(count, name="p{}"):
    return "".join(f">{name.format(i)}\nM{'ACDEFGHIKL'[i % 10]}{'KV' * (i // 10)}\n" for i in range(count))


def decoded(array):
    return np.frombuffer(
        base64.b64decode(array["bytes"]), {name: t for t, name in explorer.TYPES.items()}[array["type"]]
    )
