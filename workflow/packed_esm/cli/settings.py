"""The settings of a run in a folder, for commands that run nothing."""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..planning.config import read_config
from ..system.tree import tree
from .workflow import read_settings


def settings_there(args: argparse.Namespace) -> Mapping[str, Any]:
    """Go to the folder of --directory, if it is given, and return the settings of a run there.

    They are those of its config/config.yaml and, before them, of the command line.
    """
    words = {key: yaml.safe_load(value) for key, value in read_settings(args.inputs, args.directory).items()}
    if args.directory:
        os.chdir(args.directory)
    own = Path("config/config.yaml")
    config = yaml.safe_load(own.read_text(encoding="utf-8")) or {} if own.exists() else {}
    return read_config(config | words, tree() / "workflow" / "schemas" / "config.schema.yaml")
