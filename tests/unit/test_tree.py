"""The folder of the workflow: a clone's own, or a copy of a commit of a git repository; and the library in it."""

import runpy
import subprocess
import sys

import pytest
from conftest import ROOT
from git import GitCommandError, Repo
from snakemake.exceptions import WorkflowError
from snakemake.sourcecache import GenericSourceFile, LocalGitFile, LocalSourceFile

PATH = ROOT / "workflow/rules/tree.py"
TREE = runpy.run_path(str(PATH))


@pytest.fixture
def repository(tmp_path):
    """A git repository of one commit, with three folders that are copied and one that is not."""
    folder = tmp_path / "repository"
    for name in ("workflow/rules/common.smk", "workflow/packed_esm/__init__.py", "config/a", "envs/b", "docs/c"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"name = {name!r}\n")
    repository = Repo.init(folder)
    repository.git.add(".")
    repository.git.execute(["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-q", "-m", "one"])
    return repository


def test_the_folder_of_local_rules_is_that_above_them(tmp_path):
    rules = LocalSourceFile(str(tmp_path / "workflow/rules"))
    assert TREE["workflow_folder"](rules, tmp_path / "copies") == tmp_path / "workflow"
    assert not (tmp_path / "copies").exists()


def test_the_folder_of_rules_in_a_repository_is_a_copy_of_their_commit_and_is_kept(repository, tmp_path):
    rules = LocalGitFile(repository.working_dir, "workflow/rules", ref="HEAD")
    folder = TREE["workflow_folder"](rules, tmp_path / "copies")
    assert folder == tmp_path / "copies" / repository.head.commit.hexsha / "workflow"
    files = {str(path.relative_to(folder.parent)) for path in folder.parent.rglob("*") if path.is_file()}
    assert files == {"workflow/rules/common.smk", "workflow/packed_esm/__init__.py", "config/a", "envs/b"}
    before = (tmp_path / "copies").stat().st_mtime_ns
    assert TREE["workflow_folder"](rules, tmp_path / "copies") == folder
    assert (tmp_path / "copies").stat().st_mtime_ns == before  # not made and thrown away


def test_several_processes_that_copy_a_commit_get_one_whole_copy(repository, tmp_path):
    code = (
        f"import runpy; from pathlib import Path; from git import Repo; tree = runpy.run_path({str(PATH)!r})\n"
        f"print(tree['copy_of'](Repo({repository.working_dir!r}), 'HEAD', Path({str(tmp_path / 'copies')!r})))"
    )
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = {process.communicate(timeout=120)[0] for process in started}
    assert said == {f"{tmp_path / 'copies/HEAD'}\n"}
    assert [path.name for path in (tmp_path / "copies").iterdir()] == ["HEAD"]
    assert {path.name for path in (tmp_path / "copies/HEAD").iterdir()} == {"workflow", "config", "envs"}


def test_who_comes_second_takes_the_copy_of_the_first(repository, tmp_path):
    first = tmp_path / "copies" / "HEAD"

    class Slow:
        def archive(self, *arguments, **options):
            repository.archive(*arguments, **options)
            (first / "workflow").mkdir(parents=True)  # meanwhile another process is ready

    assert TREE["copy_of"](Slow(), "HEAD", first.parent) == first
    assert list(first.parent.iterdir()) == [first] and list(first.iterdir()) == [first / "workflow"]


def test_a_copy_that_fails_leaves_nothing(repository, tmp_path):
    repository.git.rm("-r", "-q", "envs")
    repository.git.execute(["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-q", "-m", "two"])
    with pytest.raises(GitCommandError, match="envs"):
        TREE["copy_of"](repository, "HEAD", tmp_path / "copies")
    assert not list((tmp_path / "copies").iterdir())


def test_rules_of_no_repository_say_what_to_name_instead(tmp_path):
    with pytest.raises(WorkflowError, match=r"https://example.org/workflow/rules is in no git repository.*git\+file:"):
        TREE["workflow_folder"](GenericSourceFile("https://example.org/workflow/rules"), tmp_path)


@pytest.mark.parametrize("before", ["", "import packed_esm.one"])
def test_the_library_of_a_folder_is_imported_also_after_another_one(tmp_path, before):
    for folder in ("a", "b"):
        (tmp_path / folder / "packed_esm").mkdir(parents=True)
        for name in ("__init__", "one"):
            (tmp_path / folder / f"packed_esm/{name}.py").write_text(f"place = {folder!r}\n")
    code = (
        f"import runpy, sys; from pathlib import Path; sys.path.insert(0, {str(tmp_path / 'a')!r})\n{before}\n"
        f"runpy.run_path({str(PATH)!r})['import_library_from'](Path({str(tmp_path / 'b')!r}))\n"
        "import packed_esm, packed_esm.one\nprint(packed_esm.place, packed_esm.one.place)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "b b\n"


def test_a_local_workflow_needs_no_git(tmp_path):
    code = f"import runpy; runpy.run_path({str(PATH)!r})"
    done = subprocess.run([sys.executable, "-c", code], env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
