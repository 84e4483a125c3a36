"""Download a published checkpoint, or its contact head.

Example:
  python workflow/scripts/download_model.py --model esm2_t33_650M_UR50D --out esm2_t33_650M_UR50D.pt
"""

import argparse
import sys
from pathlib import Path

import _program


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="name of a published checkpoint, for example esm2_t6_8M_UR50D")
    parser.add_argument(
        "--contact-head", action="store_true", help="download the contact head (default: the checkpoint)"
    )
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    return parser


def fetch(args: argparse.Namespace) -> None:
    from packed_esm.checkpoints.download import download
    from packed_esm.checkpoints.registry import DEMO, contact_head_url, model_url
    from packed_esm.errors import OptionError
    from packed_esm.families import MODELS

    published = [name for name, shape in MODELS.items() if name != DEMO and not shape.hub_id]
    if args.model not in published:
        raise OptionError(f"--model: {args.model!r} is not one of {', '.join(published)}")
    if args.contact_head:
        download(contact_head_url(args.model), args.out)
    else:
        download(model_url(args.model), args.out, MODELS[args.model].sha256)


def main(argv: list[str] | None = None) -> int:
    return _program.run(build_parser(), fetch, argv)


if __name__ == "__main__":
    sys.exit(main())
