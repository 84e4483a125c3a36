if variants:

    rule score_variants:
        input:
            table=variants,
            manifest="<results>/manifest.parquet",
            chunks=gather.chunk("<results>/chunks/{scatteritem}.fasta"),
            model=model_files,
            stamp=stamp("variants"),
        output:
            scores="<results>/variants.tsv",
            summary="<results>/variants.json",
        log:
            "<logs>/score_variants.log",
        benchmark:
            "<benchmarks>/score_variants.tsv"
        conda:
            EMBED_ENV
        threads: embed_threads
        resources:
            gpu=job_resources.gpus,
            mem_mb=job_resources.scoring_mb,
            runtime=job_resources.scoring_minutes,
        params:
            program=in_clone("scripts/score_variants.py"),
            bits=BITS,
            chunks=arguments_in_file("chunks.fasta"),
            scoring=arguments.variant_arguments(settings),
            placement=unrecorded(arguments.placement_arguments(settings)),
        shell:
            "python {params.program:q} --table={input.table:q} --manifest {input.manifest:q} --chunks {params.chunks:q} "
            "--out {output.scores:q} --summary {output.summary:q} --threads {threads} {params.scoring:q} "
            "{params.placement:q} --terminal 3 3>&2 > {log:q} 2>&1"
