# A rule for each group of samples, which opens a chunk once for as many of them as fit into a batch (embeddings), or for
# each hundred (residues). The files of the samples are its own outputs: one that is missing is made again with its group,
# and other workflows may name it.

for number, group in enumerate(files.groups, 1):

    rule:
        name:
            f"merge_samples_{number}"
        input:
            manifest="<results>/manifest.parquet",
            chunks=files.chunk_files("arrow"),
        output:
            [directory(path) if files.rows_per_file else path for path in map(files.embedding_file, group)],
        log:
            f"<logs>/merge_samples/{number}.log",
        benchmark:
            f"<benchmarks>/merge_samples/{number}.tsv"
        conda:
            CPU_ENV
        resources:
            mem_mb=job_resources.merging_mb,
            runtime=job_resources.merging_minutes,
        params:
            # In the list of samples too; here, so that a change of it reruns the rule.
            **({"rows_per_file": files.rows_per_file} if files.rows_per_file else {}),
            program=in_clone("scripts/merge_sample.py"),
            bits=BITS,
            samples=arguments_in_file(f"merge.{number}"),
            chunks=arguments_in_file("chunks.arrow"),
        shell:
            "python {params.program:q} --manifest {input.manifest:q} {params.samples:q} "
            "--chunks {params.chunks:q} > {log:q} 2>&1"

    for feature in files.features:

        rule:
            name:
                f"merge_residues_{feature}_{number}"
            input:
                manifest="<results>/manifest.parquet",
                chunks=files.chunk_files(f"{feature}.h5"),
            output:
                [files.residue_file(sample, feature) for sample in group],
            log:
                f"<logs>/merge_residues/{feature}.{number}.log",
            conda:
                CPU_ENV
            resources:
                mem_mb=job_resources.merging_residues_mb,
                runtime=job_resources.merging_minutes,
            params:
                program=in_clone("scripts/merge_residues.py"),
                bits=BITS,
                samples=arguments_in_file(f"merge.{feature}.{number}"),
                chunks=arguments_in_file(f"chunks.{feature}.h5"),
                link=["--link"] if results.has_linked_residues else [],
            shell:
                "python {params.program:q} --manifest {input.manifest:q} {params.samples:q} "
                "--chunks {params.chunks:q} {params.link:q} > {log:q} 2>&1"
