if settings["model"] in models.MODELS and not MODEL.exists():

    rule download_model:
        output:
            path_inside(MODEL),
        log:
            "<logs>/download_model.log",
        localrule: True
        conda:
            CPU_ENV
        params:
            program=program("download_model.py"),
            code=code_version(FOLDER / "scripts" / "download_model.py"),
            name=settings["model"],
        shell:
            "python {params.program:q} --model {params.name:q} --out {output:q} 2>&1 | tee {log:q}"


if contact_head_missing():

    rule download_contact_head:
        output:
            path_inside(CONTACT_HEAD),
        log:
            "<logs>/download_contact_head.log",
        localrule: True
        conda:
            CPU_ENV
        params:
            program=program("download_model.py"),
            code=code_version(FOLDER / "scripts" / "download_model.py"),
            name=settings["model"],
        shell:
            "python {params.program:q} --contact-head --model {params.name:q} --out {output:q} 2>&1 | tee {log:q}"


rule embed_chunk:
    input:
        fasta="<results>/chunks/{scatteritem}.fasta",
        model=model_files(),
        stamp=STAMPS["embed"],
        # Their content determines nothing but the time it takes: a newer one is no reason to embed again.
        reuse=ancient(EARLIER_RESULTS),
    output:
        embeddings="<results>/chunks/{scatteritem}.arrow",
        stats="<results>/chunks/{scatteritem}.json",
        residues=[f"{RESULTS}/chunks/{{scatteritem}}.{feature}.h5" for feature in RESIDUE_FEATURES],
    log:
        "<logs>/embed_chunk/{scatteritem}.log",
    benchmark:
        "<benchmarks>/embed_chunk/{scatteritem}.tsv"
    conda:
        EMBED_ENV
    threads: embed_threads
    resources:
        gpu=0 if settings["device"] == "cpu" else 1,
        mem_mb=embedding_memory_mb,
        runtime=embedding_minutes,
    params:
        program=program("embed_chunk.py"),
        code=code_version(FOLDER / "scripts" / "embed_chunk.py"),
        residues=residue_arguments,
        embedding=embedding_arguments(),
        repeat=repeated_share,
    shell:
        "python {params.program:q} --fasta {input.fasta:q} --out {output.embeddings:q} --stats {output.stats:q} "
        "{params.residues:q} --reuse {input.reuse:q} --threads {threads} {params.embedding:q} "
        "--repeat {params.repeat:q} --terminal 3 3>&2 > {log:q} 2>&1"
