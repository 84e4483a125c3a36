rule translate:
    input:
        fasta=nucleotides_of_sample,
        stamp=STAMPS["translate"] if TRANSLATED else [],
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
        mem_mb=translating_memory_mb,
        runtime=translating_minutes,
    params:
        program=program("translate.py"),
        bits=BITS,
        options=translation_arguments(settings),
    shell:
        "python {params.program:q} --fasta={input.fasta:q} --out {output.fasta:q} --table {output.table:q} "
        "--counts {output.counts:q} {params.options:q} > {log:q} 2>&1"
