"""Errors that a user can correct: each message names the file, line or key, and the remedy.

Programs print these errors, and an OSError or MemoryError of the system, in one line. Any other error is a bug of this
project and keeps its traceback.
"""

from collections.abc import Collection


class PackedEsmError(ValueError):
    """Base of the errors of this library."""


class OptionError(PackedEsmError):
    """An option, or a key of the configuration, has a value that cannot be used here."""


def check_one_of(key: str, value: str, allowed: Collection[str]) -> None:
    """Raise OptionError if the value of `key` is not one of the allowed words."""
    if value not in allowed:
        raise OptionError(f"{key}: {value!r} is not one of {', '.join(allowed)}")


class SheetError(PackedEsmError):
    """A sheet of the user cannot be read, or something is missing in it."""


class EarlierSettingsError(PackedEsmError):
    """Earlier results have other settings than the device of a job gives: the message names them and the remedy."""


class FastaError(PackedEsmError):
    """The file cannot be read as FASTA: the message names file, line and remedy."""


class SequenceError(PackedEsmError):
    """A sequence has no residue, or a character that is not a token."""


class CheckpointError(PackedEsmError):
    """The file is not a usable checkpoint: the message names the file, the problem and the remedy."""


class DownloadError(PackedEsmError, OSError):
    """The download is incomplete; there is no file with the final name."""


class GpuLeaseError(PackedEsmError):
    """No GPU can be leased for a job: the message gives the reason and the remedy."""


class MissingPackageError(PackedEsmError, ImportError):
    """A package that is needed is not installed, or another package has its name."""


class DamagedFileError(PackedEsmError):
    """A file is incomplete or was changed: the message names the file and the remedy."""


class EmbeddingFileError(DamagedFileError):
    """An embedding file is damaged or does not match the manifest: the message names file, sequence and remedy."""


class ValidationError(PackedEsmError):
    """The embeddings fail the validation; each failure names its sequence."""


class RepeatError(PackedEsmError):
    """A sequence that was embedded twice gave different bits: the message names sequence, device and host."""


class NonFiniteError(PackedEsmError):
    """A sequence has values that are not finite, or too large for the dtype of a file; the message names it."""
