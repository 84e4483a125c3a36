# As merging does it, each job exports a group of samples.

for number, group in enumerate(files.groups if settings["formats"] else [], 1):

    rule:
        name:
            f"export_samples_{number}"
        input:
            embeddings=[files.embedding_file(sample) for sample in group],
            manifest="<results>/manifest.parquet",
            residues=[path for sample in group for path in files.exported_residues(sample).values()],
            chunks=files.exported_chunks(),
            metadata=metadata if "h5ad" in settings["formats"] else [],
        output:
            [
                directory(path) if path.endswith(".pt") else path
                for sample in group
                for *_, path in files.exports(sample)
            ],
        log:
            f"<logs>/export_samples/{number}.log",
        benchmark:
            f"<benchmarks>/export_samples/{number}.tsv"
        conda:
            CPU_ENV
        resources:
            mem_mb=job_resources.exporting_mb,
            runtime=job_resources.exporting_minutes,
        params:
            program=in_clone("scripts/export_sample.py"),
            bits=BITS,
            samples=arguments_in_file(f"samples.{number}"),
            files=export_arguments,
        shell:
            "python {params.program:q} --manifest {input.manifest:q} {params.samples:q} {params.files:q} > {log:q} 2>&1"
