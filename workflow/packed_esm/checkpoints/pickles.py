"""Load the pickles of torch.save: tensors and plain values. Anything else is refused and never run."""

import argparse
import errno
import pickle
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError
from .headers import read_pickle_of


def load_pickle(path: Path, mapped: bool = False) -> Any:  # noqa: ANN401
    """Return the object that torch.save wrote to `path`.

    Args:
        path: of the file.
        mapped: leave the tensors in the file and map it into memory.

    Raises:
        CheckpointError: it names code, is damaged, or would need far more memory than its size.
    """
    zipped = zipfile.is_zipfile(path)
    if zipped:
        read_pickle_of(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and zipped)
    except pickle.UnpicklingError as error:
        # Not the message of torch: it advises to load the file anyway, which would run its code.
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it names {named[1]}" if named else "it is not such a pickle"
        raise CheckpointError(
            f"{path}: refused, it is not a checkpoint of tensors and plain values only ({reason}); "
            "use a file published as esm2_*.pt or safetensors"
        ) from error
    except (RuntimeError, EOFError, LookupError, ValueError, OSError) as error:
        if getattr(error, "errno", None) not in (
            None,
            errno.EINVAL,
        ):  # EINVAL: a damaged zip has an offset outside the file
            raise
        raise _unreadable(path, error) from error
    except (TypeError, AttributeError, AssertionError, OverflowError, MemoryError, struct.error) as error:
        raise _unreadable(path, error) from error  # from bytes that are not a pickle of torch.save


def _unreadable(path: Path, error: BaseException) -> CheckpointError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return CheckpointError(
        f"{path}: cannot be read as a PyTorch checkpoint ({reason}); truncated or not a checkpoint; fetch it again"
    )
