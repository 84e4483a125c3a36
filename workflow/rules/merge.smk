rule merge_residues:
    input:
        manifest="<results>/manifest.parquet",
        chunks=gather.chunk("<results>/chunks/{scatteritem}.{{feature}}.h5"),
    output:
        "<results>/residues/{sample}.{feature}.h5",
    log:
        "<logs>/merge_residues/{sample}.{feature}.log",
    conda:
        CPU_ENV
    resources:
        mem_mb=job_resources.merging_mb,
        runtime=job_resources.merging_minutes,
    params:
        program=in_clone("scripts/merge_residues.py"),
        bits=BITS,
        link=["--link"] if results.has_linked_residues else [],
    shell:
        "python {params.program:q} --manifest {input.manifest:q} --sample {wildcards.sample:q} "
        "--chunks {input.chunks:q} --out {output:q} {params.link:q} > {log:q} 2>&1"


rule merge_sample:
    input:
        manifest="<results>/manifest.parquet",
        chunks=gather.chunk("<results>/chunks/{scatteritem}.arrow"),
    output:
        "<results>/embeddings/{sample}.parquet",
    log:
        "<logs>/merge_sample/{sample}.log",
    benchmark:
        "<benchmarks>/merge_sample/{sample}.tsv"
    conda:
        CPU_ENV
    resources:
        mem_mb=job_resources.merging_mb,
        runtime=job_resources.merging_minutes,
    params:
        program=in_clone("scripts/merge_sample.py"),
        bits=BITS,
    shell:
        "python {params.program:q} --manifest {input.manifest:q} --sample {wildcards.sample:q} "
        "--chunks {input.chunks:q} --out {output:q} > {log:q} 2>&1"
