"""Jobs in a container: which image, and what Apptainer is told about this machine by the variables that it reads.

In a container of Snakemake the working directory is the home folder too. It and the temporary folder are mounted, and
nothing else of the machine.
"""

import os
import shlex
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..checkpoints.registry import hub_path, hugging_face_cache
from ..errors import OptionError
from .conda import shows_nvidia_gpu
from .inputs import usable_paths, user_path

PREFIXES = ("APPTAINER_", "SINGULARITY_")  # of its variables; Snakemake calls either program
MOST_LINKS = 40  # in one path, as in Linux


def image_of_jobs(settings: Mapping[str, Any], in_containers: bool) -> str:
    """Return the image of the key `container`, an address or a path; empty for none.

    Args:
        settings: of `read_config`.
        in_containers: jobs run in containers.

    Raises:
        OptionError: jobs run in containers, and there is no image, or a model that they would not find.
    """
    image, model = settings["container"], settings["model"]
    if not in_containers:
        return image
    if not image:
        raise OptionError(
            "container: --sdm apptainer needs an image, and none is published; set container=docker://... or the path "
            "of a .sif file (docs/conda.md has how to make one), or leave out --sdm apptainer"
        )
    if model.startswith("~"):
        raise OptionError(f"model: {model}: in a container ~ is another folder; write {user_path(model)}")
    found = image if "://" in image else _path_of(image)
    if shlex.quote(found) != found:  # Snakemake does not quote it
        raise OptionError(f"container: {found!r} has characters that a shell would change; give it another name")
    return found


def _path_of(image: str) -> str:
    path = user_path(image)
    if not path.exists():
        raise OptionError(f"container: there is no {path}; give the path of an image, or an address (docker://...)")
    return usable_paths("container", [path])[0]


def share_with_containers(paths: Iterable[str | Path]) -> None:
    """Mount the folders of these paths in every container, and the caches of models, which keep their places.

    Raises:
        OptionError: a folder that Apptainer cannot be told to mount.
    """
    caches = {"TORCH_HOME": hub_path("any").parents[2], "HF_HUB_CACHE": hugging_face_cache()}
    os.environ.update({name: str(folder) for name, folder in caches.items()})  # both depend on the home folder
    existing = [folder for folder in caches.values() if folder.exists()]
    folders = _outermost({folder for path in [tempfile.gettempdir(), *existing, *paths] for folder in _folders(path)})
    for folder in folders:
        if {",", ":"} & set(folder) or folder == "/":
            raise OptionError(f"{folder}: Apptainer cannot mount such a folder; move its files to another one")
    given = [bind for prefix in PREFIXES for bind in os.environ.get(f"{prefix}BIND", "").split(",") if bind]
    for prefix in PREFIXES:
        os.environ[f"{prefix}BIND"] = ",".join(dict.fromkeys([*given, *folders]))


def show_gpus(device: str) -> None:
    """Show NVIDIA's GPUs in every container, as `--nv` does, if the key `device` lets jobs use them."""
    if device == "cuda" or (device == "auto" and shows_nvidia_gpu()):
        os.environ.update({f"{prefix}NV": "true" for prefix in PREFIXES})


def _folders(path: str | Path) -> Iterator[Path]:
    """Yield the folder of a path, and that of each path that links lead to; of a missing one, the nearest folder."""
    path = Path(os.path.abspath(path))  # noqa: PTH100 - it keeps links
    for _ in range(MOST_LINKS):
        yield next(folder for folder in (path, *path.parents) if folder.is_dir())
        link = next((part for part in (*reversed(path.parents), path) if part.is_symlink()), None)
        if link is None:
            return
        path = Path(os.path.abspath(link.parent / link.readlink() / path.relative_to(link)))  # noqa: PTH100


def _outermost(folders: set[Path]) -> list[str]:
    """Return the folders that lie in no other one and not in the working directory, sorted."""
    outer, inner = folders | {Path.cwd()}, folders - {Path.cwd()}
    return sorted(str(one) for one in inner if not any(one.is_relative_to(other) for other in outer - {one}))
