if config["model"] in models.MODELS and not MODEL.exists():

    rule download_model:
        localrule: True
        output:
            str(MODEL),
        log:
            "logs/download_model.log",
        conda:
            CPU_ENV
        params:
            code=code_version("download_model.py"),
            name=config["model"],
        shell:
            "{PYTHON:q} {SCRIPTS:q}/download_model.py --model {params.name:q} --out {output:q} 2>&1 | tee {log:q}"


rule embed_chunk:
    input:
        fasta="results/chunks/{scatteritem}.fasta",
        model=model_files(),
    output:
        embeddings="results/chunks/{scatteritem}.arrow",
        stats="results/chunks/{scatteritem}.json",
    log:
        "logs/embed_chunk/{scatteritem}.log",
    benchmark:
        "benchmarks/embed_chunk/{scatteritem}.tsv"
    conda:
        EMBED_ENV
    params:
        code=code_version("embed_chunk.py"),
        embedding=embedding_arguments(),
    threads: embed_threads()
    resources:
        gpu=0 if config["device"] == "cpu" else 1,
        mem_mb=memory_mb,
    retries: 2
    shell:
        "{PYTHON:q} {SCRIPTS:q}/embed_chunk.py --fasta {input.fasta:q} --out {output.embeddings:q} --stats {output.stats:q} "
        "--threads {threads} {params.embedding:q} 2>&1 | tee {log:q}"
