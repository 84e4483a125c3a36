rule validate:
    input:
        fasta=list(SAMPLES.values()),
        embeddings=expand("<results>/embeddings/{sample}.parquet", sample=SAMPLES),
        residues=residue_files().values(),
        residue_values=residue_values(),
        manifest="<results>/manifest.parquet",
        stats=gather.chunk("<results>/chunks/{scatteritem}.json"),
        model=model_files(),
        stamp=STAMPS["validate"],
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
        gpu=0 if settings["device"] == "cpu" else 1,
        mem_mb=validation_memory_mb,
        runtime=validation_minutes,
    params:
        program=program("validate.py"),
        code=code_version(FOLDER / "scripts" / "validate.py"),
        samples=sample_arguments("fasta", "parquet"),
        residues=[text for key, path in residue_files().items() for text in ("--residues", *key, path)],
        validation=validation_arguments(),
        embedding=embedding_arguments(),
    shell:
        "python {params.program:q} {params.samples:q} {params.residues:q} --manifest {input.manifest:q} --stats {input.stats:q} "
        "--table {output.table:q} --summary {output.summary:q} {params.validation:q} "
        "--threads {threads} {params.embedding:q} --terminal 3 3>&2 > {log:q} 2>&1"
