rule validate:
    input:
        fasta=files.proteins.values(),
        embeddings=files.embeddings.values(),
        residues=files.residues.values(),
        residue_values=files.residue_values(),
        manifest="<results>/manifest.parquet",
        stats=gather.chunk("<results>/chunks/{scatteritem}.json"),
        model=model_files,
        stamp=stamp("validate"),
    output:
        table="<results>/validation/sequences.tsv",
        summary="<results>/validation/summary.json",
    log:
        "<logs>/validate.log",
    benchmark:
        "<benchmarks>/validate.tsv"
    conda:
        EMBED_ENV
    threads: embed_threads
    resources:
        gpu=job_resources.gpus,
        mem_mb=job_resources.validation_mb,
        runtime=job_resources.validation_minutes,
    params:
        program=in_clone("scripts/validate.py"),
        bits=BITS,
        samples=arguments_in_file("validate"),
        stats=arguments_in_file("chunks.json"),
        validation=arguments.validation_arguments(settings),
        embedding=arguments.embedding_arguments(settings),
        placement=unrecorded(arguments.placement_arguments(settings)),
    shell:
        "python {params.program:q} {params.samples:q} --manifest {input.manifest:q} --stats {params.stats:q} "
        "--table {output.table:q} --summary {output.summary:q} {params.validation:q} "
        "--threads {threads} {params.embedding:q} {params.placement:q} --terminal 3 3>&2 > {log:q} 2>&1"
