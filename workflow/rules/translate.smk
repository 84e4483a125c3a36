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
        code=code_version(FOLDER / "scripts" / "translate.py"),
        translation=translation_arguments(),
        record_limit=record_limit_arguments(),
    shell:
        "python {params.program:q} --fasta={input.fasta:q} --out {output.fasta:q} --table {output.table:q} "
        "--counts {output.counts:q} {params.translation:q} {params.record_limit:q} > {log:q} 2>&1"
