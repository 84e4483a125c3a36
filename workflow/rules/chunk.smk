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
        bits=BITS,
        samples=sample_arguments("fasta"),
        options=chunk_arguments(settings),
        embed_dim=models.shape_of(str(settings["model"])).embed_dim,
    shell:
        "python {params.program:q} {params.samples:q} --chunks {output.chunks:q} --manifest {output.manifest:q} "
        "--rejected {output.rejected:q} --counts {output.counts:q} --embed-dim {params.embed_dim} "
        "{params.options:q} > {log:q} 2>&1"
