rule merge_sample:
    input:
        manifest="results/manifest.parquet",
        chunks=gather.chunk("results/chunks/{scatteritem}.arrow"),
    output:
        "results/embeddings/{sample}.parquet",
    log:
        "logs/merge_sample/{sample}.log",
    benchmark:
        "benchmarks/merge_sample/{sample}.tsv"
    conda:
        CPU_ENV
    params:
        code=code_version("merge_sample.py"),
    resources:
        mem_mb=2000,
    shell:
        "{PYTHON:q} {SCRIPTS:q}/merge_sample.py --manifest {input.manifest:q} --sample {wildcards.sample:q} "
        "--chunks {input.chunks:q} --out {output:q} > {log:q} 2>&1"
