"""Accessions in ids: the headers of UniProt, NCBI and PDB."""

import pyarrow as pa
import pytest
from packed_esm.sequences.accessions import accession_of, accessions_of

ACCESSIONS = [
    ("sp|P12345|AATM_RABIT", "P12345"),
    ("tr|A0A024|A0A024_X", "A0A024"),
    ("sp|P12345-2|AATM_RABIT", "P12345-2"),
    ("UniRef50_P12345", "UniRef50_P12345"),
    ("UPI0000000001", "UPI0000000001"),
    ("NP_000509.1", "NP_000509.1"),
    ("ref|NP_000509.1|", "NP_000509.1"),
    ("gi|4504349|ref|NP_000509.1|", "NP_000509.1"),
    ("gi|66816243|gb|AAA16334.1|AGMA13GT", "AAA16334.1"),
    ("gi|129295|sp|P01013.1|OVAX_CHICK", "P01013.1"),
    ("gi|129295|", "gi|129295|"),
    ("gi|129295", "gi|129295"),
    ("pir||A12345", "pir||A12345"),
    ("lcl|mine", "lcl|mine"),
    ("gnl|db|mine", "gnl|db|mine"),
    ("pdb|4HHB|A", "4HHB_A"),
    ("gi|230139|pdb|4HHB|A", "4HHB_A"),
    ("pdb|4HHB|", "4HHB"),
    ("1abc_A", "1abc_A"),
    ("4HHB_1|Chains", "4HHB_1"),
    ("1UBQ_1|Chain", "1UBQ_1"),
    ("gene_1|Chains", "gene_1|Chains"),
    ("sp|P12345", "sp|P12345"),
    ("xsp|P12345|AATM_RABIT", "xsp|P12345|AATM_RABIT"),
    ("LAR_DROME/418-503", "LAR_DROME/418-503"),
    ("sp||AATM_RABIT", "sp||AATM_RABIT"),
    ("é|sp|P12345|", "é|sp|P12345|"),
    ("", ""),
]


@pytest.mark.parametrize(("record_id", "accession"), ACCESSIONS)
def test_an_accession_is_found_in_the_headers_of_databases_and_any_other_id_is_its_own(record_id, accession):
    assert accession_of(record_id) == accession


def test_accessions_of_many_ids_are_those_of_each():
    ids, accessions = map(list, zip(*ACCESSIONS, strict=True))
    assert accessions_of(pa.array(ids)).to_pylist() == accessions
    assert accessions_of(pa.array(["first", *ids])[1:]).to_pylist() == accessions
    assert accessions_of(pa.array(ids[:2])).to_pylist() == accessions[:2]
    assert accessions_of(pa.array([], pa.string())).to_pylist() == []
