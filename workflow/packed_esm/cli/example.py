"""`packed-esm test`: run the example in a temporary folder."""

import argparse
import subprocess
import sys
import tempfile

from ..system.tree import tree
from .workflow import environment_of, snakemake_arguments


def main(args: argparse.Namespace) -> int:
    """Return the exit status of Snakemake: 0 where the example was embedded and agrees with fair-esm."""
    args.inputs = [str(tree() / "config" / "samples.tsv"), *args.inputs]
    with tempfile.TemporaryDirectory(prefix="packed-esm-") as folder:
        args.directory = folder
        arguments = snakemake_arguments(args)
        environment = environment_of(args)
        done = subprocess.run([sys.executable, "-P", "-m", "snakemake", *arguments], env=environment, check=False)
    print("The example passed." if done.returncode == 0 else "The example failed.", file=sys.stderr)
    return done.returncode
