"""What others give (checkpoints, headers, names, downloads) is data: it runs nothing and is put nowhere else."""

import ast
import os
import re
import shutil
import stat

import pandas as pd
import pytest
import torch
import yaml
from checkpoint_files import save_hugging_face
from conftest import ROOT, random_esm2
from packed_esm.checkpoints.loading import load_esm2
from packed_esm.checkpoints.registry import DEMO_PATH
from packed_esm.errors import CheckpointError
from packed_esm.system.files import replacing
from workflow.conftest import Project

from .table import Row, held_by
from .test_files_between import EMBED

TITLE = "What others give"
REFUSED = "is refused by name; nothing runs"
PICKLE = Row(
    "a checkpoint with code in it, embed_chunk.py",
    REFUSED,
    words="evil.pt: refused, it is not a checkpoint of tensors and plain values only (it names posix.system)",
)
BESIDE = Row(
    "a contact head with code in it, beside a good checkpoint", REFUSED, words="-contact-regression.pt: refused"
)
SAFETENSORS = Row(
    "a folder with safetensors and a pytorch_model.bin with code in it", "the safetensors are read; nothing runs"
)
SHELL = Row("shell, paths and HTML in headers, in the name of a FASTA, in color_by; through snakemake", "they come out as they stood; nothing runs, no file elsewhere, the page has them escaped")  # fmt: skip
UMASK = Row("files while they are written, and after", "the owner's alone while written, then by the umask")
CODE = Row("eval, exec, shell=True, pickle, unsafe YAML in the workflow", "there is none")
QUOTING = Row("what the rules put into a shell command", "is quoted (:q), but for numbers and words of a list")
ACTIONS = Row("GitHub actions", "each by the sha of a commit")
ROWS = [
    PICKLE,
    BESIDE,
    SAFETENSORS,
    held_by("a pickle with code, old format", REFUSED, "unit/checkpoints/test_loading.py::test_a_pickle_with_code_is_refused_and_not_run"),
    held_by("a published checkpoint", "comes over https", "unit/checkpoints/test_download.py::test_published_checkpoints_come_over_https"),
    held_by("a download that is redirected to another host or scheme", "is refused; nothing is kept", "unit/checkpoints/test_download.py::test_a_redirect_to_another_host_or_scheme_is_refused"),
    held_by("a short or wrong download", "is refused; a good file is not overwritten", "unit/checkpoints/test_download.py::test_a_short_or_wrong_file_is_not_kept_and_a_good_one_not_overwritten"),
    held_by("another model under a published name", REFUSED, "unit/embedding/test_embedder.py::test_a_file_in_torch_hubs_cache_that_is_another_model_is_refused"),
    SHELL,
    UMASK,
    CODE,
    QUOTING,
    ACTIONS,
]  # fmt: skip


class Payload:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_a_checkpoint_with_code_in_it(tmp_path, program, seen):
    (tmp_path / "s.fasta").write_text(">a\nMKV\n")
    torch.save({"cfg": {"model": Payload()}, "model": {}}, tmp_path / "evil.pt")
    arguments = [word if word != "demo" else "./evil.pt" for word in EMBED]
    done = program("embed_chunk", "--fasta", "s.fasta", "--out", "s.arrow", "--stats", "s.json", *arguments)
    assert done.status == 1 and PICKLE.words in done.last and "weights_only" not in done.last
    assert {path.name for path in tmp_path.iterdir()} == {"s.fasta", "evil.pt"}
    seen(PICKLE, done.last)


def test_a_contact_head_with_code_in_it(tmp_path, monkeypatch, seen):
    monkeypatch.chdir(tmp_path)
    shutil.copy(DEMO_PATH, "esm2_small.pt")
    torch.save({"model": Payload()}, "esm2_small-contact-regression.pt")
    with pytest.raises(CheckpointError) as error:
        load_esm2("esm2_small.pt")
    assert BESIDE.words in str(error.value) and not (tmp_path / "pwned").exists()
    seen(BESIDE, str(error.value))


def test_a_folder_with_both(tmp_path, monkeypatch, seen):
    monkeypatch.chdir(tmp_path)
    folder = save_hugging_face(random_esm2(2, 32, 2), tmp_path / "hf")
    torch.save(Payload(), folder / "pytorch_model.bin")
    assert load_esm2(folder).num_layers == 2 and not (tmp_path / "pwned").exists()
    seen(SAFETENSORS, "loaded; nothing ran")


IDS = ["$(touch${IFS}pwned)", "`touch\tpwned`", ";touch${IFS}pwned", "../../pwned", "/tmp/pwned", "<script>alert(1)</script>", "--help", "{id}", "'\"|&>pwned", "%s\\n"]  # fmt: skip


def test_shell_paths_and_html_in_what_is_given(tmp_path, seen):
    project = Project(tmp_path / "project")
    name = "a $(touch pwned);'\"&`touch pwned`.fasta"
    project.folder.mkdir()
    (project.folder / name).write_text(
        "".join(f">{i} OS=<script>x</script>\n{'MKVL' * n}\n" for n, i in enumerate([*IDS, "<b>"]))
    )
    (project.folder / "samples.tsv").write_text(f"sample\tfasta\ns\t{name}\n")
    color = "color_by=$(touch pwned);<script>"
    project.passes(config=(color, "validation={sequences: 2}"))
    assert (
        project.embeddings("s")["id"].tolist() == [i.split()[0] for i in [*IDS, "<b>"]][1:]
    )  # the first has no residue
    rejected = pd.read_csv(project.folder / "results/demo/rejected.tsv", sep="\t")
    assert rejected["id"].tolist() == IDS[:1]
    page = (project.folder / "results/demo/report.html").read_text()
    assert "<script>alert" not in page and "touch${IFS}pwned" in page
    assert not list(tmp_path.rglob("*pwned")) and {p.name for p in tmp_path.iterdir()} == {"project"}
    assert {p.name for p in project.folder.iterdir()} <= {
        name,
        "samples.tsv",
        "results",
        "logs",
        "benchmarks",
        ".snakemake",
    }
    seen(SHELL, f"{len(IDS)} ids as they stood; no file of the name pwned")


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002], ids=oct)
def test_files_are_private_until_they_are_whole(tmp_path, seen, umask):
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o666 & ~umask
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    seen(UMASK, "0600, then 0666 without the umask")


FORBIDDEN = {
    "eval",
    "exec",
    "__import__",
    "os.system",
    "os.popen",
    "pickle.load",
    "pickle.loads",
    "yaml.load",
    "np.load",
}


def is_fixed(command):
    """Return whether a command is a list of words that stand in the code, or Snakemake with arguments, without a shell."""
    if not isinstance(command, ast.List):
        return False
    program = [ast.unparse(word) for word in command.elts[:4]]
    is_snakemake = program == ["sys.executable", "'-P'", "'-m'", "'snakemake'"]
    return is_snakemake or all(isinstance(word, ast.Constant) for word in command.elts)


def test_nothing_in_the_workflow_runs_what_it_is_given(seen):
    files = [*(ROOT / "workflow").rglob("*.py")]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                name, keywords = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert name not in FORBIDDEN, f"{file}: {ast.unparse(node)}"
                if name.startswith(("subprocess.", "os.exec", "os.spawn")):
                    assert is_fixed(node.args[int(name.startswith("os."))]), f"{file}: {ast.unparse(node)}"
                assert keywords.get("shell", "False") == "False", f"{file}: {ast.unparse(node)}"
                assert name != "torch.load" or keywords["weights_only"] == "True", f"{file}: {ast.unparse(node)}"
                assert "autoescape" not in keywords or keywords["autoescape"] == "True"
    rules = "".join(path.read_text() for path in [*(ROOT / "workflow").rglob("*.smk"), ROOT / "workflow/Snakefile"])
    assert not re.search(r"\b(eval|exec|os\.system|subprocess|yaml\.load)\b", rules)
    seen(CODE, "none in the modules and the rules")


# Whole numbers, and words that the schema lists.
UNQUOTED = {"{threads}", "{params.embed_dim}", "{params.on_invalid}", "{params.on_duplicate_id}"}


def test_what_the_rules_put_into_a_shell_command_is_quoted(seen):
    fields = []
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        for command in re.findall(r"    shell:\n((?: {8}.*\n?)+)", path.read_text()):
            fields += re.findall(r"\{[^}]*\}", command)
    unquoted = {field for field in fields if not field.endswith(":q}")}
    assert len(fields) > 40 and unquoted <= UNQUOTED
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())["properties"]
    assert schema["on_invalid"]["enum"] and schema["on_duplicate_id"]["enum"]
    seen(QUOTING, f"not quoted: {', '.join(sorted(unquoted))}")


def test_actions_are_named_by_commit(seen):
    texts = [path.read_text() for path in (ROOT / ".github" / "workflows").glob("*.yml")]
    used = re.findall(r"uses: (.*)", "".join(texts))
    assert used and all(re.fullmatch(r"[\w/.-]+@[0-9a-f]{40} # v[\d.]+", action) for action in used)
    seen(ACTIONS, ", ".join(sorted({f"{action.split('@')[0]} {action.split('# ')[1]}" for action in used})))
