# Memory and minutes of each job, settled when it is started, as a function of its input files, the model and the attempt.
# A file that is not there yet (at the start, in a dry run) makes Snakemake say <TBD>.

from packed_esm.planning import resources as needed
from packed_esm.planning.inputs import fasta_bytes

SHAPE = models.shape_of(str(settings["model"]))
ON_GPU = settings["device"] != "cpu"


def size_of(*paths):
    """Return the bytes of files."""
    return sum(Path(path).stat().st_size for path in paths)


def translating_memory_mb(wildcards, input, attempt):
    """Return MB of translate."""
    return needed.translating_memory_mb(fasta_bytes([input.fasta]), attempt)


def translating_minutes(wildcards, input, attempt):
    """Return minutes of translate."""
    return needed.translating_minutes(fasta_bytes([input.fasta]), attempt)


def chunking_memory_mb(wildcards, input, attempt):
    """Return MB of chunk_fasta."""
    return needed.chunking_memory_mb(fasta_bytes(input.fasta), attempt)


def chunking_minutes(wildcards, input, attempt):
    """Return minutes of chunk_fasta."""
    return needed.chunking_minutes(fasta_bytes(input.fasta), attempt)


def embedding_memory_mb(wildcards, input, attempt):
    """Return MB of embed_chunk; of what is repeated there are two vectors."""
    columns = len(settings["layers"]) * len(settings["pooling"]) * (1 + settings["validation"]["repeat"])
    base = needed.embedding_memory_mb(SHAPE, size_of(input.fasta), columns, attempt)
    return base + (needed.RESIDUES_MB * attempt if RESIDUE_FEATURES else 0)


def embedding_minutes(wildcards, input, threads, attempt):
    """Return minutes of embed_chunk."""
    residues = size_of(input.fasta) * (1 + settings["validation"]["repeat"])
    return needed.embedding_minutes(SHAPE, residues, ON_GPU, threads, attempt)


def merging_memory_mb(wildcards, input, attempt):
    """Return MB of merge_sample."""
    return needed.tables_memory_mb(needed.MERGE_MB, size_of(input.manifest), attempt)


def merging_minutes(wildcards, input, attempt):
    """Return minutes of merge_sample."""
    return needed.tables_minutes(size_of(input.manifest, *input.chunks), attempt)


def exporting_memory_mb(wildcards, input, attempt):
    """Return MB of export_sample."""
    columns = len(settings["layers"]) * len(settings["pooling"])
    return needed.exporting_memory_mb(SHAPE, size_of(input.manifest), columns, attempt)


def exporting_minutes(wildcards, input, attempt):
    """Return minutes of export_sample."""
    return needed.exporting_minutes(SHAPE, size_of(input.embeddings), attempt)


def validation_memory_mb(wildcards, input, attempt):
    """Return MB of validate."""
    return needed.validation_memory_mb(SHAPE, size_of(input.manifest), attempt)


def validation_minutes(wildcards, input, threads, attempt):
    """Return minutes of validate."""
    tables = fasta_bytes(input.fasta) + size_of(input.manifest, *input.embeddings, *input.residue_values)
    return needed.validation_minutes(SHAPE, settings["validation"]["sequences"], tables, ON_GPU, threads, attempt)


def report_memory_mb(wildcards, input, attempt):
    """Return MB of make_report."""
    return needed.tables_memory_mb(needed.REPORT_MB, size_of(input.manifest), attempt)


def report_minutes(wildcards, input, attempt):
    """Return minutes of make_report."""
    return needed.tables_minutes(size_of(input.manifest, *input.embeddings), attempt)
