"""What Apptainer is told about this machine: the folders that jobs need, the caches of models, and the GPUs."""

import os

import pytest
from packed_esm.checkpoints.registry import hub_path, hugging_face_cache
from packed_esm.errors import OptionError
from packed_esm.planning import containers
from packed_esm.planning.containers import image_of_jobs, share_with_containers, show_gpus


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """A working directory, a home folder and a temporary folder, and no variables of Apptainer."""
    for name in ("work", "home", "temporary"):
        (tmp_path / name).mkdir()
    given = {"HOME": str(tmp_path / "home")}
    monkeypatch.setattr(os, "environ", given)
    monkeypatch.setattr(containers.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path / "work")
    return given


def mounted(environment, root):
    """Return the mounted folders, as paths in `root`."""
    assert environment["APPTAINER_BIND"] == environment["SINGULARITY_BIND"]
    return [os.path.relpath(folder, root) for folder in environment["APPTAINER_BIND"].split(",")]


def test_folders_outside_the_working_directory_are_mounted_once(environment, tmp_path):
    for name in ("a/b", "c"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a/b/x.fasta").touch()
    share_with_containers(
        [tmp_path / "a/b/x.fasta", tmp_path / "a", "../c/none/yet.pt", "results", tmp_path / "work/x"]
    )
    assert mounted(environment, tmp_path) == ["a", "c", "temporary"]
    share_with_containers([tmp_path / "a"])
    assert mounted(environment, tmp_path) == ["a", "c", "temporary"]


def test_all_folders_on_the_way_of_a_link_are_mounted(environment, tmp_path):
    (tmp_path / "disk/user/data").mkdir(parents=True)
    (tmp_path / "disk/user/data/x.fasta").touch()
    (tmp_path / "home/scratch").symlink_to(tmp_path / "disk/user")
    (tmp_path / "work/data").symlink_to("../home/scratch/data")
    (tmp_path / "work/x.fasta").symlink_to("data/x.fasta")
    share_with_containers(["x.fasta"])
    assert mounted(environment, tmp_path) == ["disk/user/data", "home/scratch/data", "temporary"]


def test_folders_that_a_user_mounts_stay(environment, tmp_path):
    environment["SINGULARITY_BIND"] = "/data:/mnt:ro"
    share_with_containers([])
    assert environment["APPTAINER_BIND"] == environment["SINGULARITY_BIND"] == f"/data:/mnt:ro,{tmp_path}/temporary"


def test_the_caches_of_models_keep_their_places_though_the_home_folder_is_another_one(environment, tmp_path):
    torch_hub, hugging_face = hub_path("esm2_t6_8M_UR50D"), hugging_face_cache()
    torch_hub.parent.mkdir(parents=True)
    share_with_containers([])
    assert mounted(environment, tmp_path) == ["home/.cache/torch", "temporary"]
    environment["HOME"] = str(tmp_path / "work")
    assert hub_path("esm2_t6_8M_UR50D") == torch_hub and hugging_face_cache() == hugging_face


@pytest.mark.parametrize("name", ["a,b", "a:b"])
def test_a_folder_that_cannot_be_named_to_apptainer_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(OptionError, match="Apptainer cannot mount"):
        share_with_containers([tmp_path / name])
    with pytest.raises(OptionError, match="^/: Apptainer cannot mount"):
        share_with_containers(["/some.fasta"])


@pytest.mark.parametrize(
    ("device", "seen", "shown"),
    [("auto", True, True), ("auto", False, False), ("cuda", False, True), ("cpu", True, False), ("mps", True, False)],
)
def test_gpus_are_shown_where_jobs_may_use_them(environment, monkeypatch, device, seen, shown):
    monkeypatch.setattr(containers, "shows_nvidia_gpu", lambda: seen)
    show_gpus(device)
    assert {name for name in environment if name.endswith("_NV")} == (
        {"APPTAINER_NV", "SINGULARITY_NV"} if shown else set()
    )


def test_an_image_is_an_address_or_a_path_that_exists(tmp_path):
    (tmp_path / "home/my.sif").touch()

    def image(container, used=True, model="demo"):
        return image_of_jobs({"container": container, "model": model}, used)

    assert image("docker://registry/image") == "docker://registry/image"
    assert image("~/my.sif") == str(tmp_path / "home/my.sif")
    assert image("", used=False) == "" and image("missing.sif", used=False) == "missing.sif"
    (tmp_path / "work/my image.sif").touch()
    for unquoted in ("docker://x/{y}", "docker://x y", "my image.sif"):
        with pytest.raises(OptionError, match="container: .* has characters that a shell would change"):
            image(unquoted)
        assert image(unquoted, used=False) == unquoted
    (tmp_path / "work/a{b}.sif").touch()
    with pytest.raises(OptionError, match="container: a{b}.sif has braces"):
        image("a{b}.sif")
    with pytest.raises(
        OptionError, match=f"model: ~/a.pt: in a container ~ is another folder; write {tmp_path}/home/a"
    ):
        image("~/my.sif", model="~/a.pt")
