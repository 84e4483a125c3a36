"""Errors that a user can mend: each message names the file, line or key, and the remedy.

Programs print these in one line. Anything else that is raised, but for an OSError or a MemoryError of the system, is a
bug of ours and keeps its traceback.
"""

from collections.abc import Collection


class PackedEsmError(ValueError):
    """Base of the errors of this library."""


class OptionError(PackedEsmError):
    """An option, or a key of the configuration, has a value that cannot be used here."""


def check_one_of(key: str, value: str, allowed: Collection[str]) -> None:
    """Raise OptionError where the value of `key` is none of the words that it may be."""
    if value not in allowed:
        raise OptionError(f"{key}: {value!r} is not one of {', '.join(allowed)}")


class SheetError(PackedEsmError):
    """A sheet that the user wrote cannot be read, or lacks something."""


class FastaError(PackedEsmError):
    """The file cannot be read as FASTA: the message names file, line and remedy."""


class SequenceError(PackedEsmError):
    """A sequence has no residue, or a character that is no token."""


class CheckpointError(PackedEsmError):
    """The file is no usable ESM-2 checkpoint: the message names it, what is wrong, and the remedy."""


class DownloadError(PackedEsmError, OSError):
    """The file could not be fetched whole; nothing stands under its final name."""


class GpuLeaseError(PackedEsmError):
    """No GPU can be had for a job alone: the message says why, and the remedy."""


class MissingPackageError(PackedEsmError, ImportError):
    """A package that is needed here is not installed, or another one has its name."""


class DamagedFileError(PackedEsmError):
    """A file is not whole, or was changed: file and remedy are named."""


class EmbeddingFileError(DamagedFileError):
    """An embedding file is damaged, or is not what the manifest says: file, sequence and remedy are named."""


class ValidationError(PackedEsmError):
    """The embeddings are not what they should be; each failure names its sequence."""


class RepeatError(PackedEsmError):
    """A sequence that was embedded twice gave different bits: the device fails. Sequence, device and host are named."""


class NonFiniteError(PackedEsmError):
    """A sequence gave values that are not finite, or beyond the dtype of a file; it is named."""
