rule translate:
    input:
        fasta=lookup(dpath="{sample}", within=local_samples),
        stamp=stamp("translate"),
    output:
        fasta="<results>/translated/{sample}.fasta",
        table="<results>/translated/{sample}.tsv",
        counts="<results>/translated/{sample}.json",
    log:
        "<logs>/translate/{sample}.log",
    benchmark:
        "<benchmarks>/translate/{sample}.tsv"
    conda:
        CPU_ENV
    resources:
        mem_mb=job_resources.translating_mb,
        runtime=job_resources.translating_minutes,
    params:
        program=in_clone("scripts/translate.py"),
        bits=BITS,
        options=arguments.translation_arguments(settings),
    shell:
        "python {params.program:q} --fasta={input.fasta:q} --out {output.fasta:q} --table {output.table:q} "
        "--counts {output.counts:q} {params.options:q} > {log:q} 2>&1"
