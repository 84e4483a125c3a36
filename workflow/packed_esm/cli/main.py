"""The command line of `packed-esm`."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from .. import __version__
from ..errors import PackedEsmError
from ..system.tree import tree
from . import workflow

HELP = """\
packed-esm: FASTA files in, ESM-2 embeddings out, in ./results.

  packed-esm PROTEINS.fasta [MORE.faa.gz | FOLDER | SHEET.tsv ...] [KEY=VALUE ...] [OPTIONS]
  packed-esm                  embed the samples of ./config/config.yaml; without one, the example
  packed-esm models           list the models: their size, and which are on this computer
  packed-esm doctor           show what a run would use: device, kernels, model, disk
  packed-esm clean            list the results that no longer belong to the run, and remove them
  packed-esm test             run the example in a temporary folder

keys that people set most (all keys: {keys}):
  model=esm2_t33_650M_UR50D   a published model, or the path of a checkpoint (default: demo, small, for trying)
  layers=-1  pooling=mean     which vectors: layers=0,20,-1 pooling=mean,max,std,bos,eos
  per_residue=float16         also a vector for each residue
  include=log_likelihood      also logits, contacts, wildtype_marginals, masked_marginals ...
  formats=h5ad                also h5, npy, h5ad, skbio, pt
  device=cuda  dtype=auto     default: a GPU if there is one, in fp16; else the CPU in fp32
  long_proteins.max_length=1022 long_proteins.action=split
  metadata=mine.tsv color_by=host

options:
  --cores N          CPU cores to use (default: all)
  --directory DIR    where results go (default: the working directory)
  --conda            run the jobs in conda environments
  --apptainer        run the jobs in the image of the key container
  --slurm            submit the jobs to Slurm
  --dry-run          show what would run
  --verbose          show Snakemake's output
  --version, --help
  -- ...             all that follows goes to Snakemake, as in: packed-esm my.fasta -- --keep-going
"""

COMMANDS = {"models": "models", "doctor": "doctor", "clean": "clean", "test": "example"}  # {command: module}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of a run."""
    parser = argparse.ArgumentParser(prog="packed-esm", add_help=False, allow_abbrev=False)
    parser.add_argument("inputs", nargs="*")
    parser.add_argument("--config", action="store_true")  # what Snakemake has before KEY=VALUE; not needed here
    parser.add_argument("--cores", "-c", "-j", default="all")
    parser.add_argument("--directory", "-d", default="")
    parser.add_argument("--conda", action="store_true")
    parser.add_argument("--apptainer", action="store_true")
    parser.add_argument("--slurm", action="store_true")
    parser.add_argument("--dry-run", "-n", action="store_true")
    parser.add_argument("--verbose", "-v", action="store_true")
    parser.add_argument("--yes", "-y", action="store_true")
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--version", "-V", action="version", version=f"packed-esm {__version__}")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    split = words.index("--") if "--" in words else len(words)
    words, for_snakemake = words[:split], words[split + 1 :]
    command = words[0] if words and words[0] in COMMANDS else None
    args, unknown = build_parser().parse_known_intermixed_args(words[1:] if command else words)
    if args.help:
        print(HELP.format(keys=tree() / "config" / "README.md"))
        return 0
    try:
        if unknown:
            raise PackedEsmError(f"there is no option {unknown[0]}; options of Snakemake go after `--` (see --help)")
        if command and for_snakemake:
            raise PackedEsmError(f"{command} has no options of Snakemake; leave out what follows `--`")
        if command is None:
            return workflow.run(args, for_snakemake)
        # Imported here: a run, which replaces this process, would wait for what they import.
        return importlib.import_module(f".{COMMANDS[command]}", __package__).main(args)
    except PackedEsmError as error:
        print(f"packed-esm: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of the output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
