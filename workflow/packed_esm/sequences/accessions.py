"""The accession in the id of a record: by which databases, and sheets of metadata, know the protein.

| id of the record | accession | whose headers |
|---|---|---|
| `sp|P12345|AATM_RABIT`, `tr|A0A024|A0A024_X` | `P12345`, `A0A024` | UniProtKB [1] |
| `sp|P12345-2|AATM_RABIT` | `P12345-2` | UniProtKB, an isoform [1] |
| `UniRef50_P12345`, `UPI0000000001` | the id: a cluster's, and a sequence's, own accession | UniRef, UniParc [1] |
| `NP_000509.1` | the id | NCBI [2] |
| `ref|NP_000509.1|`, `gi|4504349|ref|NP_000509.1|`, `gb|AAA16334.1|` | `NP_000509.1`, `AAA16334.1` | NCBI, BLAST [2] |
| `pdb|4HHB|A`, `gi|230139|pdb|4HHB|A` | `4HHB_A` | NCBI, BLAST [2] |
| `4hhb_A` | the id | PDB, pdb_seqres.txt [3] |
| `4HHB_1|Chains` | `4HHB_1` | PDB, FASTA of an entry [3] |
| any other | the id | |

A version (`.1`) is part of NCBI's accession. Names without an accession (`pir||A12345`, `lcl|mine`, `gnl|db|mine`,
`gi|129295`) stay whole.

[1] https://www.uniprot.org/help/fasta-headers
[2] ftp://ftp.ncbi.nih.gov/blast/db/README, and the table of FASTA sequence ids in
    https://ncbi.github.io/cxx-toolkit/pages/ch_demo#ch_demo.id1_fetch.html_ref_fasta
[3] https://files.wwpdb.org/pub/pdb/derived_data/pdb_seqres.txt.gz, https://www.rcsb.org/fasta/entry/4HHB
"""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

# UniProtKB's headers, isoforms included.
_UNIPROT = re.compile(r"(?:sp|tr)\|([A-Z0-9]+(?:-[0-9]+)?)\|")
# NCBI's `database|accession|name`, in which the name may be empty, perhaps after a GenInfo number.
_DATABASES = ("ref", "gb", "emb", "dbj", "sp", "tr", "pir", "prf", "tpg", "tpe", "tpd", "gpp", "nat")
_NCBI = re.compile(rf"(?:gi\|[0-9]+\|)?(?:{'|'.join(_DATABASES)})\|([^|]+)\|")
_NCBI_PDB = re.compile(r"(?:gi\|[0-9]+\|)?pdb\|([^|]+)\|([^|]*)")
_PDB_ENTRY = re.compile(r"([0-9][0-9A-Za-z]{3}_[0-9]+)\|Chains?$")


def uniprot_accession(record_id: str) -> str | None:
    """Return the accession in an id of UniProtKB's, P12345 of `sp|P12345|AATM_RABIT`; None of any other."""
    match = _UNIPROT.match(record_id)
    return match[1] if match else None


def accession_of(record_id: str) -> str:
    """Return the accession in an id, by the table of this module; an id that has none is its own."""
    if match := _NCBI.match(record_id) or _PDB_ENTRY.match(record_id):
        return match[1]
    if match := _NCBI_PDB.match(record_id):
        return "_".join(filter(None, match.groups()))
    return record_id


def accessions_of(record_ids: "pa.StringArray") -> "pa.StringArray":
    """Return `accession_of` each id; without a loop for `database|accession|name` and for ids without `|`."""
    import numpy as np  # here, because embed jobs and dry runs import this module and do not call this
    import pyarrow as pa
    import pyarrow.compute as pc

    from ..system.arrow import array_of_texts

    fields = pc.split_pattern(record_ids, "|", max_splits=2)
    starts, counts = fields.offsets.to_numpy()[:-1], np.diff(fields.offsets)
    three = np.flatnonzero(counts == 3)
    database, accession = fields.values.take(starts[three]), fields.values.take(starts[three] + 1)
    plain = three[pc.and_(pc.is_in(database, pa.array(_DATABASES)), pc.not_equal(accession, ""))]
    is_plain = np.zeros(len(starts), np.int32)
    is_plain[plain] = 1
    found = fields.values.take(starts + is_plain)
    if not (others := counts > 1 + 2 * is_plain).any():
        return found
    others = pa.array(others)
    return pc.replace_with_mask(found, others, array_of_texts(map(accession_of, record_ids.filter(others).to_pylist())))
