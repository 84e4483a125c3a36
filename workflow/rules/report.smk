rule make_report:
    input:
        embeddings=expand("results/embeddings/{sample}.parquet", sample=SAMPLES),
        manifest="results/manifest.parquet",
        counts="results/counts.json",
        rejected="results/rejected.tsv",
        stats=gather.chunk("results/chunks/{scatteritem}.json"),
        validation="results/validation/summary.json",
        table="results/validation/sequences.tsv",
        template=path_inside(FOLDER / "packed_esm" / "report.html.j2"),
    output:
        html="results/report.html",
        pca=report(
            "results/figures/pca.png",
            caption="../report/pca.rst",
            category="Embeddings",
        ),
        lengths=report(
            "results/figures/lengths.png",
            caption="../report/lengths.rst",
            category="Input",
        ),
        validation=report(
            "results/figures/validation.png",
            caption="../report/validation.rst",
            category="Validation",
        ),
        throughput=report(
            "results/figures/throughput.png",
            caption="../report/throughput.rst",
            category="Speed",
        ),
    log:
        "logs/make_report.log",
    conda:
        CPU_ENV
    resources:
        mem_mb=report_memory_mb,
        runtime=report_minutes,
    params:
        program=program("make_report.py"),
        code=code_version(FOLDER / "scripts" / "make_report.py"),
        samples=sample_arguments("parquet"),
        figures=lambda wildcards, output: str(Path(output.pca).parent),
        color_by=config["color_by"],
    shell:
        "python {params.program:q} {params.samples:q} --manifest {input.manifest:q} --counts {input.counts:q} "
        "--rejected {input.rejected:q} --stats {input.stats:q} --validation {input.validation:q} "
        "--validation-table {input.table:q} --figures {params.figures:q} --html {output.html:q} "
        "--color-by={params.color_by:q} > {log:q} 2>&1"
