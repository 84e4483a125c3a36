"""Look for bytes that the reading of FASTA does not survive, with a fuzzer that is guided by coverage.

  pip install atheris && python -m tests.faults.fuzz_fasta -max_total_time=600 [CORPUS]

Each input is chunked as a FASTA file, and every record must be accounted for, or the file refused by a message that
names it. The first byte chooses `on_invalid` and `on_duplicate_id`. Anything else stops the program with the input.
What is written is looked at for one input in two hundred, because it takes as much longer.
"""

import logging
import sys
import tempfile
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT)]

with atheris.instrument_imports(include=["packed_esm", "Bio.SeqIO.FastaIO", "gzip", "_compression"]):
    from tests.faults.any_input import ON_DUPLICATE_ID, ON_INVALID, check_any_bytes, check_reading

logging.disable(logging.CRITICAL)
seen = {"embedded": 0, "refused": 0}


def one_input(data: bytes) -> None:
    choice, data = data[:1] or b"\0", data[1:]
    on_invalid, on_duplicate_id = ON_INVALID[choice[0] % 3], ON_DUPLICATE_ID[choice[0] // 3 % 2]
    outcome = check_reading(FOLDER / "s.fasta", data, on_invalid, on_duplicate_id)
    if sum(seen.values()) % 200 == 0:
        assert check_any_bytes(FOLDER, data, on_invalid, on_duplicate_id) == outcome
    seen["embedded" if outcome == "embedded" else "refused"] += 1
    if sum(seen.values()) % 10_000 == 0:
        print(seen, file=sys.stderr)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        FOLDER = Path(folder)
        atheris.Setup(sys.argv, one_input)
        atheris.Fuzz()
