from snakemake import __version__ as snakemake_version


rule make_report:
    input:
        embeddings=files.embeddings.values(),
        manifest="<results>/manifest.parquet",
        counts="<results>/counts.json",
        rejected="<results>/rejected.tsv",
        stats=gather.chunk("<results>/chunks/{scatteritem}.json"),
        validation="<results>/validation/summary.json",
        table="<results>/validation/sequences.tsv",
        metadata=metadata,
        stamp=stamp("report"),
    output:
        html="<results>/report.html",
        pca=report(
            "<results>/figures/pca.png",
            caption="../report/pca.rst",
            category="Embeddings",
            labels={"figure": "Principal components"},
        ),
        umap=report(
            "<results>/figures/umap.png",
            caption="../report/umap.rst",
            category="Embeddings",
            labels={"figure": "UMAP"},
        ),
        lengths=report(
            "<results>/figures/lengths.png",
            caption="../report/lengths.rst",
            category="Input",
            labels={"figure": "Lengths"},
        ),
        validation=report(
            "<results>/figures/validation.png",
            caption="../report/validation.rst",
            category="Validation",
            labels={"figure": "Difference from the reference"},
        ),
        throughput=report(
            "<results>/figures/throughput.png",
            caption="../report/throughput.rst",
            category="Speed",
            labels={"figure": "Rate and fill"},
        ),
        stages=report(
            "<results>/figures/stages.png",
            caption="../report/stages.rst",
            category="Speed",
            labels={"figure": "Seconds by stage"},
        ),
    log:
        "<logs>/make_report.log",
    conda:
        CPU_ENV
    resources:
        mem_mb=job_resources.report_mb,
        runtime=job_resources.report_minutes,
    params:
        program=in_clone("scripts/make_report.py"),
        samples=arguments_in_file("report"),
        stats=arguments_in_file("chunks.json"),
        figures=lambda wildcards, output: str(Path(output.pca).parent),
        captions=in_clone("report"),
        color_by=literal(settings["color_by"]),
        metadata=[f"--metadata={sheet}" for sheet in metadata],
        snakemake=snakemake_version,
        stale=stale_results,
    shell:
        "python {params.program:q} {params.samples:q} --manifest {input.manifest:q} --counts {input.counts:q} "
        "--rejected {input.rejected:q} --stats {params.stats:q} --validation {input.validation:q} "
        "--validation-table {input.table:q} --captions {params.captions:q} --figures {params.figures:q} "
        "--html {output.html:q} --color-by={params.color_by:q} {params.metadata:q} "
        "--snakemake-version {params.snakemake:q} --stale={params.stale:q} > {log:q} 2>&1"
