"""What several test files share: the library on the path, models, sequences and the fair-esm reference."""

import argparse
import copy
import importlib
import logging
import os
import resource
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

from packed_esm.checkpoints.loading import load_esm2  # noqa: E402
from packed_esm.checkpoints.registry import DEMO_PATH  # noqa: E402
from packed_esm.kernels.int8 import why_no_int8  # noqa: E402
from packed_esm.sequences.alphabet import RESIDUES  # noqa: E402
from packed_esm.sequences.tokens import MASK, tokenize  # noqa: E402

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # as many workers as cores

SHARED = ROOT.parent / "shared"
PROGRAMS = ROOT / "workflow" / "scripts"
STANDARD = "ACDEFGHIKLMNPQRSTVWY"


def pytest_addoption(parser):
    parser.addoption("--slurm", action="store_true", help="run tests/slurm, which starts a Slurm on this machine")
    parser.addoption("--browser", action="store_true", help="fail, rather than skip, tests/browser without Chromium")
    parser.addoption("--all-faults", action="store_true", help="flip all bits of tests/faults, write docs/faults.md")


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("needs the development data in ../shared, which a user's clone does not have")
    return SHARED


@dataclass
class Done:
    """How a program ended."""

    status: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """The last line on stderr."""
        return (self.err.splitlines() or [""])[-1]


@pytest.fixture
def program(tmp_path, capsys, monkeypatch):
    """Return a function that calls a program in a folder of its own, without a new process: (name, arguments) -> Done.

    With `most_bytes`, no file may become larger: what a full disk looks like to a program.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(PROGRAMS))
    threads, handler, root = torch.get_num_threads(), signal.getsignal(signal.SIGTERM), logging.getLogger()
    sizes = resource.getrlimit(resource.RLIMIT_FSIZE)

    def call(name, *arguments, most_bytes=sizes[0]):
        module = importlib.import_module(name)
        monkeypatch.setattr(sys, "argv", [f"{name}.py"])
        capsys.readouterr()
        handlers, level = root.handlers[:], root.level
        root.handlers[:] = []  # pytest's, or the program would leave the log to them
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, sizes[1]))
        try:
            status = module.main([str(argument) for argument in arguments])
        except SystemExit as error:  # argparse
            status = error.code
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, sizes)
            root.handlers[:] = handlers
            root.setLevel(level)
        return Done(status, *capsys.readouterr())

    yield call
    signal.signal(signal.SIGTERM, handler)
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def _demo():
    return load_esm2(DEMO_PATH)


@pytest.fixture
def demo(_demo):
    """A fresh copy of the demonstration model: fair-esm caches rotary tables on a used one."""
    return copy.deepcopy(_demo)


int8_runs_here = pytest.mark.skipif(
    why_no_int8(torch.device("cpu")) is not None, reason=f"int8: {why_no_int8(torch.device('cpu'))}"
)


def random_esm2(num_layers: int = 3, embed_dim: int = 64, heads: int = 2, seed: int = 0):
    """Return a fair-esm ESM2 of random weights, scaled so that attention is far from uniform."""
    from esm.model.esm2 import ESM2

    torch.manual_seed(seed)
    return _stirred(ESM2(num_layers, embed_dim, heads))


def random_esm1b(num_layers: int = 3, embed_dim: int = 64, heads: int = 2, norm_before: bool = True, seed: int = 0):
    """Return a fair-esm ESM-1b of random weights; without the norm before the blocks it is an ESM-1v."""
    from esm import Alphabet
    from esm.model.esm1 import ProteinBertModel

    torch.manual_seed(seed)
    args = argparse.Namespace(
        arch="roberta_large",
        layers=num_layers,
        embed_dim=embed_dim,
        ffn_embed_dim=4 * embed_dim,
        attention_heads=heads,
        max_positions=1024,
        token_dropout=True,
        emb_layer_norm_before=norm_before,
    )
    return _stirred(ProteinBertModel(args, Alphabet.from_architecture("roberta_large")))


def _stirred(model):
    model = model.eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_norm" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
            elif name.endswith("bias"):
                parameter.normal_(0, 0.1)
            elif "q_proj" in name or "k_proj" in name:
                parameter.mul_(2.0)
    return model


def random_sequence(length: int, rng: np.random.Generator, letters: str = STANDARD) -> str:
    return "".join(rng.choice(list(letters), size=length))


def random_tokens(lengths, seed: int = 0, masked: tuple[int, ...] = (), letters: str = STANDARD):
    """Return tokens of random proteins; of the sequences `masked`, every seventh residue is a mask token."""
    rng = np.random.default_rng(seed)
    tokens = [tokenize(random_sequence(length, rng, letters)) for length in lengths]
    for i in masked:
        tokens[i][1:-1:7] = MASK
    return tokens


def pack(tokens):
    """Return (input_ids, cu_seqlens, max_seqlen) of sequences, without filler."""
    lengths = [len(t) for t in tokens]
    input_ids = torch.from_numpy(np.concatenate(tokens).astype(np.int64))
    cu_seqlens = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)
    return input_ids, cu_seqlens, max(lengths)


def fair_esm_alone(model, tokens, layers):
    """Return {layer: fp32 [T, E]} of fair-esm's own forward on one unpadded sequence."""
    batch = torch.from_numpy(tokens.astype(np.int64))[None]
    with torch.inference_mode():
        representations = model(batch, repr_layers=layers)["representations"]
    return {layer: representations[layer][0] for layer in layers}


def relative_l2(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got.double() - want.double()).norm() / want.double().norm())


def worst_residue_l2(got: torch.Tensor, want: torch.Tensor) -> float:
    """Return the worst residue's relative L2; where the truth is zero (masked, layer 0), any difference is infinite."""
    error, norm = (got.double() - want.double()).norm(dim=-1), want.double().norm(dim=-1)
    return float(torch.where(error == 0, 0.0, error / norm).max())


def worst_residue_cosine(got: torch.Tensor, want: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(got.double(), want.double(), dim=-1).min())


__all__ = ["PROGRAMS", "RESIDUES", "ROOT", "SHARED", "STANDARD"]


@pytest.fixture
def one_thread():
    """One thread of torch: in a pack that is small, more would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small_card(monkeypatch):
    """Let masked copies in packs of more than 1,100 tokens run out of memory."""
    from packed_esm.embedding.masked import MaskedCopies

    start = MaskedCopies._start

    def start_small(self, model, sweep):
        if sum(len(one.pack.input_ids) for one in sweep) > 1100:
            raise torch.OutOfMemoryError("simulated")
        return start(self, model, sweep)

    monkeypatch.setattr(MaskedCopies, "_start", start_small)
