rule make_report:
    input:
        embeddings=expand("results/embeddings/{sample}.parquet", sample=SAMPLES),
        manifest="results/manifest.parquet",
        counts="results/counts.json",
        rejected="results/rejected.tsv",
        stats=gather.chunk("results/chunks/{scatteritem}.json"),
        validation="results/validation/summary.json",
        table="results/validation/sequences.tsv",
        template=str(WORKFLOW_FOLDER / "packed_esm" / "report.html.j2"),
    output:
        html="results/report.html",
        pca=report("results/figures/pca.png", caption="../report/pca.rst", category="Embeddings"),
        lengths=report("results/figures/lengths.png", caption="../report/lengths.rst", category="Input"),
        validation=report("results/figures/validation.png", caption="../report/validation.rst", category="Validation"),
        throughput=report("results/figures/throughput.png", caption="../report/throughput.rst", category="Speed"),
    log:
        "logs/make_report.log",
    conda:
        CPU_ENV
    params:
        code=code_version("make_report.py"),
        samples=[
            text for sample in SAMPLES for text in ("--sample", sample, f"results/embeddings/{sample}.parquet")
        ],
        figures=lambda wildcards, output: str(Path(output.pca).parent),
        color_by=config["color_by"],
    resources:
        mem_mb=4000,
    shell:
        "{PYTHON:q} {SCRIPTS:q}/make_report.py {params.samples:q} --manifest {input.manifest:q} --counts {input.counts:q} "
        "--rejected {input.rejected:q} --stats {input.stats:q} --validation {input.validation:q} "
        "--validation-table {input.table:q} --figures {params.figures:q} --html {output.html:q} "
        "--color-by {params.color_by:q} > {log:q} 2>&1"
