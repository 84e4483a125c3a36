"""Versions of the software that affects results."""

import platform
from importlib.metadata import PackageNotFoundError, version

from .. import __version__

PACKAGES = (
    "torch",
    "triton",
    "flash-attn",
    "fair-esm",
    "numpy",
    "pandas",
    "pyarrow",
    "biopython",
    "safetensors",
    "scikit-learn",
    "umap-learn",
    "matplotlib",
)

OF_BACKENDS = {  # the package that does the work of an attention backend or of kernels, where it is not torch
    "gluon": ("triton",),
    "triton": ("triton",),
    "flash-attn": ("flash-attn",),
    "flash-attn-3": ("fa3-fwd", "flash-attn-3"),
}


def installed_version(package: str) -> str | None:
    """Return the version of a package, without importing it; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def backend_version(backend: str) -> str:
    """Return `backend` with the version of the package that does the work, where it is not torch."""
    found = next(filter(None, map(installed_version, OF_BACKENDS.get(backend, ()))), None)
    return f"{backend} {found}" if found else backend


def package_versions() -> dict[str, str]:
    """Return {package: version} of this library, of Python and of each of PACKAGES that is installed."""
    found = {"packed_esm": __version__, "python": platform.python_version()}
    return found | {package: there for package in PACKAGES if (there := installed_version(package))}
