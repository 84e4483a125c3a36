"""Errors of this library: each message names the file, the line or key, and the remedy."""


class DamagedFileError(ValueError):
    """A file is not whole, or was changed: file and remedy are named."""


class FastaError(ValueError):
    """The file cannot be read as FASTA: the message names file, line and remedy."""


class CheckpointError(ValueError):
    """The file is no usable ESM-2 checkpoint: the message names it, what is wrong, and the remedy."""


class DownloadError(OSError):
    """The file could not be fetched whole; nothing stands under its final name."""


class EmbeddingFileError(DamagedFileError):
    """An embedding file is damaged, or is not what the manifest says: file, sequence and remedy are named."""


class ValidationError(ValueError):
    """The embeddings are not what they should be; each failure names its sequence."""


class NonFiniteError(ValueError):
    """A sequence gave values that are not finite; it is named."""
