rule chunk_fasta:
    input:
        fasta=files.proteins.values(),
        stamp=stamp("chunk"),
    output:
        chunks=kept(scatter.chunk("<results>/chunks/{scatteritem}.fasta"), settings["keep_chunks"]),
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
        mem_mb=job_resources.chunking_mb,
        runtime=job_resources.chunking_minutes,
    params:
        program=in_clone("scripts/chunk_fasta.py"),
        bits=BITS,
        samples=arguments_in_file("chunk"),
        chunks=arguments_in_file("chunks.fasta"),
        options=arguments.chunk_arguments(settings),
        embed_dim=model.shape.embed_dim,
        # Only which chunk a sequence is in depends on them.
        own=unrecorded(results.folder),
        reuse=arguments_in_file("reuse"),
    shell:
        "python {params.program:q} {params.samples:q} --chunks {params.chunks:q} --manifest {output.manifest:q} "
        "--rejected {output.rejected:q} --counts {output.counts:q} --embed-dim {params.embed_dim} "
        "{params.options:q} --own-results {params.own:q} --reuse {params.reuse:q} > {log:q} 2>&1"
