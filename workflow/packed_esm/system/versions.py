"""Versions of the software that affects results."""

import platform
from importlib.metadata import PackageNotFoundError, version

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


def package_versions() -> dict[str, str]:
    """Return {package: version} of Python and of each of PACKAGES that is installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
