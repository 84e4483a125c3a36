"""What jobs ask for: enough for what was measured, more for more, doubled with each attempt."""

import pytest
from packed_esm.families import MODELS
from packed_esm.planning import resources

M650, M150, DEMO = (MODELS[name] for name in ("esm2_t33_650M_UR50D", "esm2_t30_150M_UR50D", "demo"))
CHUNK = 20_000_000  # residues_per_chunk


@pytest.mark.parametrize(
    "amount",
    [
        pytest.param(lambda attempt: resources.translating_memory_mb(CHUNK, attempt), id="translating-memory"),
        pytest.param(lambda attempt: resources.translating_minutes(CHUNK, attempt), id="translating-time"),
        pytest.param(lambda attempt: resources.chunking_memory_mb(CHUNK, attempt), id="chunking-memory"),
        pytest.param(lambda attempt: resources.chunking_minutes(CHUNK, attempt), id="chunking-time"),
        pytest.param(lambda attempt: resources.embedding_memory_mb(M650, CHUNK, 1, attempt), id="embedding-memory"),
        pytest.param(lambda attempt: resources.embedding_minutes(M650, CHUNK, True, 8, attempt), id="embedding-time"),
        pytest.param(lambda attempt: resources.validation_memory_mb(M650, CHUNK, attempt), id="validation-memory"),
        pytest.param(lambda attempt: resources.validation_minutes(M650, 32, CHUNK, True, 8, attempt), id="validation"),
        pytest.param(lambda attempt: resources.exporting_memory_mb(M650, CHUNK, 1, attempt), id="exporting-memory"),
        pytest.param(lambda attempt: resources.exporting_minutes(M650, CHUNK, attempt), id="exporting-time"),
        pytest.param(lambda attempt: resources.tables_memory_mb(2000, CHUNK, attempt), id="tables-memory"),
        pytest.param(lambda attempt: resources.tables_minutes(CHUNK, attempt), id="tables-time"),
    ],
)
def test_each_attempt_asks_for_twice_as_much(amount):
    first, second, third = (amount(attempt) for attempt in (1, 2, 3))
    assert isinstance(first, int) and first > 0
    assert (second, third) == (2 * first, 4 * first)


@pytest.mark.parametrize(
    ("asked", "measured"),
    [
        pytest.param(resources.translating_memory_mb(12.2e6), 175, id="translating-a-chromosome-of-12-million-whole"),
        pytest.param(resources.chunking_memory_mb(130e6), 716, id="chunking-300,000-proteins"),
        pytest.param(resources.chunking_memory_mb(13e6), 490, id="chunking-300,000-peptides"),
        pytest.param(resources.chunking_memory_mb(3.6e9), 1581, id="chunking-10-million-proteins"),
        pytest.param(resources.chunking_memory_mb(90e9), 4390, id="chunking-250-million-proteins-extrapolated"),
        pytest.param(resources.embedding_memory_mb(M150, 15_000, 1), 1308, id="embedding-with-150M-on-CPU"),
        pytest.param(resources.validation_memory_mb(M150, 15_000), 1994, id="validating-with-150M-on-CPU"),
        pytest.param(resources.exporting_memory_mb(M650, 3.4e6, 1), 721, id="exporting-50,000-proteins"),
        pytest.param(resources.tables_memory_mb(resources.MERGE_MB, 22.7e6), 743, id="merging-300,000-proteins"),
        pytest.param(resources.report_memory_mb(22.7e6), 1150, id="reporting-300,000-proteins"),
    ],
)
def test_more_memory_is_asked_for_than_was_measured(asked, measured):
    assert 1.4 * measured < asked < 12 * measured


def test_memory_to_embed_holds_the_weights_the_chunk_and_every_vector():
    base = resources.embedding_memory_mb(M650, 0, 1)
    assert base == 3000 + int(2 * 4 * M650.parameters / 1e6)
    one, three = (resources.embedding_memory_mb(M650, CHUNK, columns) for columns in (1, 3))
    vectors = CHUNK / 200 * 1280 * 4 / 1e6
    assert one == pytest.approx(base + 8 * CHUNK / 1e6 + vectors, abs=1)
    assert three - one == pytest.approx(2 * vectors, abs=1)


def test_the_third_attempt_holds_vectors_of_the_shortest_records():
    record = len(">SQ." + 32 * "x" + " s|p12345\nMKVAA\n")
    needed = CHUNK / record * 33 * 4 * 1280 / 1e6
    assert resources.embedding_memory_mb(M650, CHUNK, 33, attempt=3) > needed


@pytest.mark.parametrize(
    ("shape", "gpu", "threads", "residues", "residues_per_second"),
    [
        pytest.param(M650, True, 8, 20e6, 295_645, id="650M-on-H200"),
        pytest.param(M650, True, 8, 1e9, 295_645, id="650M-on-H200-and-a-thousand-million-residues"),
        pytest.param(M150, False, 2, 20e6, 152, id="150M-on-two-cores"),
        pytest.param(DEMO, False, 2, 20e6, 8_670, id="demo-on-two-cores"),
    ],
)
def test_more_time_is_asked_for_than_was_measured(shape, gpu, threads, residues, residues_per_second):
    minutes = resources.embedding_minutes(shape, residues, gpu, threads)
    assert minutes > 2 * residues / residues_per_second / 60


def test_more_time_to_export_all_formats_is_asked_for_than_was_measured():
    assert resources.exporting_minutes(M650, 50_000 * 4 * 1280) > 2 * 196 / 60


def test_default_chunks_fit_in_the_hour_on_a_gpu_and_more_threads_shorten_it_on_a_cpu():
    assert 30 < resources.embedding_minutes(M650, CHUNK, True, 8) < 60
    many, few = (resources.embedding_minutes(M650, CHUNK, False, threads) for threads in (32, 8))
    assert 3 < few / many < 4


def test_time_to_validate_grows_with_sequences_and_with_what_is_read():
    few, more = (resources.validation_minutes(M650, n, 0, True, 8) for n in (32, 10_000))
    assert 10 < few < 30 and more > 10 * few
    assert resources.validation_minutes(M650, 32, 12e9, True, 8) == few + 10


def test_operations_of_a_forward_are_two_for_each_parameter_and_those_of_attention():
    assert resources.forward_operations(M650, 1, 0) == pytest.approx(2 * M650.parameters, rel=1e-3)
    assert resources.forward_operations(M650, 10, 1000) == 33 * 10 * (24 * 1280**2 + 4 * 1280 * 1000)
