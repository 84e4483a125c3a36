rule chunk_fasta:
    input:
        fasta=list(SAMPLES.values()),
        stamp=STAMPS["chunk"],
    output:
        chunks=scatter.chunk("<results>/chunks/{scatteritem}.fasta"),
        manifest="<results>/manifest.parquet",
        rejected="<results>/rejected.tsv",
        counts="<results>/counts.json",
    log:
        "<logs>/chunk_fasta.log",
    benchmark:
        "<benchmarks>/chunk_fasta.tsv"
    conda:
        CPU_ENV
    resources:
        mem_mb=chunking_memory_mb,
        runtime=chunking_minutes,
    params:
        program=program("chunk_fasta.py"),
        code=code_version(FOLDER / "scripts" / "chunk_fasta.py"),
        samples=sample_arguments("fasta"),
        on_invalid=settings["on_invalid"],
        on_duplicate_id=settings["on_duplicate_id"],
        translated=["--translated"] if TRANSLATED else [],
        limit=length_arguments(),
        record_limit=record_limit_arguments(),
        embed_dim=models.shape_of(str(settings["model"])).embed_dim,
    shell:
        "python {params.program:q} {params.samples:q} --chunks {output.chunks:q} --manifest {output.manifest:q} "
        "--rejected {output.rejected:q} --counts {output.counts:q} --on-invalid {params.on_invalid} "
        "--on-duplicate-id {params.on_duplicate_id} --embed-dim {params.embed_dim} {params.translated:q} "
        "{params.limit:q} {params.record_limit:q} > {log:q} 2>&1"
