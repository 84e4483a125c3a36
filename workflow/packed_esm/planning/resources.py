"""Memory (MB) and time (minutes) to ask a scheduler for, from file sizes and the model's shape.

No file is read. Each figure is more than ordinary proteins need, and is doubled with each attempt for unusual ones.
Measured with 300,000 records like UniProt's (390 bytes each in a chunk) and as many peptides (80 bytes), and with a
150M model on two cores (Xeon, AVX-512); the figures of GPUs are those of README.
"""

from ..families import ModelShape

MB = 1e6

PROGRAM_MB = 1000  # Python and pyarrow; 100 were measured
TORCH_MB = 3000  # with CUDA's libraries and a pack; 260 were measured on a CPU
REPORT_MB = 4000  # 1,800 were measured of 100,000 points; 512 MiB of embeddings, twice, at most
RESIDUES_MB = 2000  # values of residues before they are written: 256 MiB; logits and contacts of packs
CONTACTS_MB = 4000  # maps of packs whose proteins have 5,000 residues; twice as much with each attempt
PACKS_ON_HOST = 4  # with values of residues in page-locked memory, of which torch takes up to twice as much
PACK_VALUES = 63e6, 32768  # of a layer in a pack on a GPU: at most the first, or the second for each dimension
MERGE_MB = 2000  # two batches of 64 MiB, or of 256, and the mapped parts of chunk files; 760 were measured
EXPORT_MB = 2000  # torch, anndata and a batch of one column; 700 were measured
EXPORT_BATCH_BYTES = 3 * 4096 * 4  # per number of an embedding; it is in memory three times: file, batch, copy
CHUNKING_MB = 4000  # at most for DuckDB, limited to 2,000, and batches; 1,600 were measured of 10 million proteins
PLACES_FACTOR = 0.05  # memory / bytes of FASTA: 4 bytes for each different sequence; proteins have 360, peptides 43
LOOK_UP_FACTOR = 10  # memory / bytes of the manifest: its digests and as many of earlier results
FASTA_FACTOR = 8  # memory / bytes; measured when embedding: proteins 2.2, peptides 6.6; chunking needs less of many
TRANSLATE_FACTOR = 3  # memory / bytes; measured: reads 1, a chromosome in windows 2, whole 2.8
MANIFEST_FACTOR = 20  # memory / bytes of the Parquet file, where all rows of a sample are held; 11 to 16 were measured
LENGTHS_FACTOR = 0.25  # the same, where a length is held of each record, 4 bytes of 64, twice
CANDIDATES_MB = 500  # 262,144 rows of the manifest, 1 kB each
SEQUENCES_FACTOR = 4  # memory / bytes of the chunks' FASTA files; proteins 2 were measured, peptides 3.5
RECORD_BYTES = 200  # halved with each attempt; the third, 50, is a digest and a few residues
EMBED_WEIGHTS_FACTOR = 2  # 1.8 were measured: the checkpoint and the model
STREAMED_MB = 4000  # beside page-locked weights: one layer while it is made, and what torch keeps of such memory
VALIDATE_WEIGHTS_FACTOR = 3  # 2.9 were measured on a CPU: fair-esm's model beside the packed one

START_MINUTES = 10  # imports from a shared file system, compilation
CHECKPOINT_BYTES_PER_SECOND = 100e6  # from a shared file system
FASTA_BYTES_PER_SECOND = 2e6  # measured when chunking: proteins 17e6, peptides 1.7e6
TABLE_BYTES_PER_SECOND = 20e6  # measured when merging vectors of 1,280 numbers: 145e6
EXPORT_SECONDS = 0.01  # per vector, in all formats; 0.0015 were measured, 0.004 on a busy machine
GPU_FLOPS = 20e12  # half precision; 408e12 were measured on an H200, the peak of a T4 is 65e12
GPU_FP32_FLOPS = 2e12  # 32e12 were measured on an H200 with fair-esm
CPU_FLOPS = 10e9  # per thread; 23e9 were measured
TYPICAL_LENGTH = 1000
TYPICAL_COPIES = 500  # masked copies that a residue is in: the length of its protein, the mean over all residues
VARIANT_BYTES = 15  # of a row of the table
VARIANTS_FACTOR = 40  # memory / bytes of the table: its cells and mutations as objects of Python
LONGEST_LENGTH = 35_000  # titin


def translating_memory_mb(fasta_bytes: float, attempt: int = 1) -> int:
    """Return the memory to translate a FASTA file: its longest record, and the ids."""
    return _grown(PROGRAM_MB + TRANSLATE_FACTOR * fasta_bytes / MB, attempt)


def translating_minutes(fasta_bytes: float, attempt: int = 1) -> int:
    """Return the time to translate a FASTA file; 4e6 to 10e6 bytes per second were measured."""
    return _grown(START_MINUTES + _fasta_minutes(fasta_bytes), attempt)


def chunking_memory_mb(fasta_bytes: float, attempt: int = 1) -> int:
    """Return the memory to chunk FASTA files: limited, but for the chunk of each sequence."""
    limited = min(PROGRAM_MB + FASTA_FACTOR * fasta_bytes / MB, CHUNKING_MB)
    return _grown(limited + PLACES_FACTOR * fasta_bytes / MB, attempt)


def chunking_minutes(fasta_bytes: float, attempt: int = 1) -> int:
    """Return the time to read all FASTA files."""
    return _grown(START_MINUTES + _fasta_minutes(fasta_bytes), attempt)


def weights_memory_mb(shape: ModelShape, streamed: int | None = None) -> float:
    """Return the memory for weights; `streamed`: bytes of a parameter in page-locked memory, None if there are none."""
    if streamed is None:
        return EMBED_WEIGHTS_FACTOR * shape.weight_bytes / MB
    return STREAMED_MB + streamed * shape.parameters / MB


def looking_up_memory_mb(manifest_bytes: float, attempt: int = 1) -> int:
    """Return the memory to look for all sequences in earlier results, which is limited."""
    return _grown(min(PROGRAM_MB + LOOK_UP_FACTOR * manifest_bytes / MB, CHUNKING_MB), attempt)


def copying_memory_mb(shape: ModelShape, chunk_bytes: float, columns: float) -> int:
    """Return the memory to copy the embeddings of a chunk: its sequences, and `columns` vectors for each."""
    return int(PROGRAM_MB + (FASTA_FACTOR * chunk_bytes + _vector_bytes(shape, chunk_bytes, columns)) / MB)


def embedding_memory_mb(
    shape: ModelShape, chunk_bytes: float, columns: float, attempt: int = 1, streamed: int | None = None
) -> int:
    """Return the memory to embed a chunk: the weights, its sequences, and `columns` vectors for each."""
    vectors = _vector_bytes(shape, chunk_bytes, columns)
    held = weights_memory_mb(shape, streamed) + (FASTA_FACTOR * chunk_bytes + vectors) / MB
    return _grown(TORCH_MB + held, attempt)


def residues_memory_mb(shape: ModelShape, layers: int, contacts: bool, gpu: bool, attempt: int = 1) -> int:
    """Return the memory for the values of residues of `layers` layers, and contacts, before they are written."""
    least, for_each_dimension = PACK_VALUES
    packs = PACKS_ON_HOST * layers * 2 * 4 * max(least, for_each_dimension * shape.embed_dim) if gpu else 0
    return _grown(RESIDUES_MB + packs / MB + (CONTACTS_MB if contacts else 0), attempt)


def embedding_minutes(
    shape: ModelShape, chunk_bytes: float, gpu: bool, threads: int, attempt: int = 1, masked_copies: bool = False
) -> int:
    """Return the time to embed a chunk, as if every byte were a residue, with or without a copy for each residue."""
    residues = chunk_bytes * (1 + TYPICAL_COPIES) if masked_copies else chunk_bytes
    compute = forward_operations(shape, residues, TYPICAL_LENGTH) / (GPU_FLOPS if gpu else CPU_FLOPS * threads) / 60
    return _grown(START_MINUTES + _loading_minutes(shape) + _fasta_minutes(chunk_bytes) + compute, attempt)


def scoring_memory_mb(shape: ModelShape, table_bytes: float, attempt: int = 1, streamed: int | None = None) -> int:
    """Return the memory to score variants: the weights, the table, and the rows of the manifest that it names."""
    table = VARIANTS_FACTOR * table_bytes / MB
    return _grown(TORCH_MB + weights_memory_mb(shape, streamed) + table, attempt)


def scoring_minutes(
    shape: ModelShape,
    table_bytes: float,
    input_bytes: float,
    gpu: bool,
    threads: int,
    pseudo: bool = False,
    attempt: int = 1,
) -> int:
    """Return the time to score variants: a masked copy for each; `pseudo`: one for each residue of each."""
    copies = table_bytes / VARIANT_BYTES * (TYPICAL_COPIES if pseudo else 1)
    operations = forward_operations(shape, copies * TYPICAL_LENGTH, TYPICAL_LENGTH)
    compute = operations / (GPU_FLOPS if gpu else CPU_FLOPS * threads) / 60
    return _grown(tables_minutes(input_bytes + table_bytes) + _loading_minutes(shape) + compute, attempt)


def validation_memory_mb(shape: ModelShape, manifest_bytes: float, attempt: int = 1) -> int:
    """Return the memory to compare with fair-esm; manifest and embeddings are read in batches.

    Args:
        manifest_bytes: of the manifest, if there are residue files, whose check holds the rows of a sample; else 0.
    """
    weights = VALIDATE_WEIGHTS_FACTOR * shape.weight_bytes
    return _grown(TORCH_MB + CANDIDATES_MB + (weights + MANIFEST_FACTOR * manifest_bytes) / MB, attempt)


def validation_minutes(
    shape: ModelShape, sequences: int, input_bytes: float, gpu: bool, threads: int, attempt: int = 1
) -> int:
    """Return the time to check all rows, and to run `sequences` and a longest one twice: packed and in fair-esm."""
    operations = sequences * forward_operations(shape, TYPICAL_LENGTH, TYPICAL_LENGTH)
    operations += forward_operations(shape, LONGEST_LENGTH, LONGEST_LENGTH)
    compute = operations / (GPU_FP32_FLOPS if gpu else CPU_FLOPS * threads) / 60
    return _grown(tables_minutes(input_bytes) + 2 * (_loading_minutes(shape) + compute), attempt)


def exporting_memory_mb(
    shape: ModelShape, manifest_bytes: float, columns: int, attempt: int = 1, chunk_bytes: float = 0
) -> int:
    """Return the memory to export a sample: manifest, sequences, and a batch of records with `columns` vectors each."""
    batch = EXPORT_BATCH_BYTES * columns * shape.embed_dim
    held = MANIFEST_FACTOR * manifest_bytes + SEQUENCES_FACTOR * chunk_bytes
    return _grown(EXPORT_MB + (held + batch) / MB, attempt)


def exporting_minutes(shape: ModelShape, embeddings_bytes: float, attempt: int = 1) -> int:
    """Return the time to write embeddings in other formats; most of it is for one file or dataset per vector."""
    return _grown(START_MINUTES + embeddings_bytes / (4 * shape.embed_dim) * EXPORT_SECONDS / 60, attempt)


def tables_memory_mb(base_mb: float, manifest_bytes: float, attempt: int = 1) -> int:
    """Return the memory of a job that holds rows of the manifest, at most all, and `base_mb` for any input."""
    return _grown(base_mb + MANIFEST_FACTOR * manifest_bytes / MB, attempt)


def merging_memory_mb(attempt: int = 1) -> int:
    """Return the memory to merge embeddings, whatever their number."""
    return _grown(MERGE_MB, attempt)


def report_memory_mb(manifest_bytes: float, attempt: int = 1) -> int:
    """Return the memory to make the report: the proteins that it draws, and the lengths of all."""
    return _grown(REPORT_MB + LENGTHS_FACTOR * manifest_bytes / MB, attempt)


def tables_minutes(input_bytes: float, attempt: int = 1) -> int:
    """Return the time of a job that reads manifest and embeddings once."""
    return _grown(START_MINUTES + input_bytes / TABLE_BYTES_PER_SECOND / 60, attempt)


def forward_operations(shape: ModelShape, residues: float, length: float) -> float:
    """Return the operations of a forward over sequences of `length`: 24 d^2 + 4 d L per layer and residue."""
    return shape.num_layers * residues * (24 * shape.embed_dim**2 + 4 * shape.embed_dim * length)


def _vector_bytes(shape: ModelShape, chunk_bytes: float, columns: float) -> float:
    return chunk_bytes / RECORD_BYTES * columns * 4 * shape.embed_dim


def _loading_minutes(shape: ModelShape) -> float:
    """Return the time to read the checkpoint twice: for its sha256, and to load it."""
    return 2 * shape.weight_bytes / CHECKPOINT_BYTES_PER_SECOND / 60


def _fasta_minutes(fasta_bytes: float) -> float:
    return fasta_bytes / FASTA_BYTES_PER_SECOND / 60


def _grown(amount: float, attempt: int) -> int:
    return int(amount) * 2 ** (attempt - 1)
