"""The folder of the workflow: that of its clone or package, or a copy of the commit that a remote Snakefile is of.

Snakemake fetches the Snakefiles of a remote workflow one by one, but the rules need the library, the programs and the
environments too. So the commit is copied from the git repository that Snakemake reads. common.smk runs this file by
itself, because the library cannot be imported before.
"""

from __future__ import annotations

import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from snakemake.exceptions import WorkflowError
from snakemake.sourcecache import HostingProviderFile, LocalGitFile, LocalSourceFile, SourceFile

if TYPE_CHECKING:
    from git import Repo

PARTS = ("workflow", "config", "envs")


def workflow_folder(rules: SourceFile, copies: Path) -> Path:
    """Return the local folder workflow/ that a folder of rules belongs to.

    Args:
        rules: Snakemake's name of workflow/rules.
        copies: folder of the copies, each named by its commit. A copy that is there is used again, so the processes of
            jobs find that of the main process.

    Raises:
        WorkflowError: the rules are neither in a local folder nor in a git repository.
    """
    if isinstance(rules, LocalSourceFile):
        return Path(str(rules)).absolute().parent
    if isinstance(rules, LocalGitFile):
        from git import Repo  # it raises ImportError where there is no git, which a clone or a package does not need

        repository = Repo(rules.repo_path)
    elif isinstance(rules, HostingProviderFile):
        rules.fetch_if_required()
        repository = rules.hosted_repo.repo
    else:
        raise WorkflowError(
            f"{rules} is in no git repository, and the programs need a library beside them; "
            "name the Snakefile by github(), gitlab(), gh:, gl: or git+file:, or that of a clone"
        )
    commit = repository.git.rev_parse(f"{rules.ref}^{{commit}}")
    return copy_of(repository, commit, copies) / "workflow"


def copy_of(repository: Repo, commit: str, copies: Path) -> Path:
    """Return the folder with the files of a commit; it appears whole, also where several processes make it."""
    folder = copies / commit
    if folder.is_dir():
        return folder
    copies.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=copies))
    try:
        with tempfile.TemporaryFile() as archive:
            repository.archive(archive, commit, path=PARTS)
            archive.seek(0)
            with tarfile.open(fileobj=archive) as files:
                files.extraction_filter = getattr(tarfile, "data_filter", None)  # Python before 3.11.4 has none
                files.extractall(unfinished)
        unfinished.chmod(0o755)
        unfinished.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was first
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def import_library_from(folder: Path) -> None:
    """Let `import packed_esm` mean the library in a folder, also where another version was imported before."""
    sys.path.insert(0, str(folder))
    library = sys.modules.get("packed_esm")
    if library is not None and not Path(library.__file__ or "").samefile(folder / "packed_esm" / "__init__.py"):
        for name in [name for name in sys.modules if name.partition(".")[0] == "packed_esm"]:
            del sys.modules[name]
