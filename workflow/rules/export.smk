if settings["formats"]:

    rule export_sample:
        input:
            embeddings="<results>/embeddings/{sample}.parquet",
            manifest="<results>/manifest.parquet",
            residues=lambda wildcards: files.exported_residues(wildcards.sample).values(),
            chunks=files.exported_chunks(),
            metadata=metadata if "h5ad" in settings["formats"] else [],
        output:
            [directory(path) if path.endswith(".pt") else path for *_, path in files.exports("{sample}")],
        log:
            "<logs>/export_sample/{sample}.log",
        benchmark:
            "<benchmarks>/export_sample/{sample}.tsv"
        conda:
            CPU_ENV
        resources:
            mem_mb=job_resources.exporting_mb,
            runtime=job_resources.exporting_minutes,
        params:
            program=in_clone("scripts/export_sample.py"),
            bits=BITS,
            files=export_arguments,
        shell:
            "python {params.program:q} --embeddings {input.embeddings:q} --manifest {input.manifest:q} "
            "--sample {wildcards.sample:q} {params.files:q} > {log:q} 2>&1"
