if model.is_missing:

    rule download_model:
        output:
            local(inputs.path_inside(model.path)),
        log:
            "<logs>/download_model.log",
        localrule: True
        conda:
            CPU_ENV
        params:
            program=in_clone("scripts/download_model.py"),
            name=settings["model"],
        shell:
            "python {params.program:q} --model {params.name:q} --out {output:q} 2>&1 | tee {log:q}"


if model.is_contact_head_missing:

    rule download_contact_head:
        output:
            local(inputs.path_inside(model.contact_head)),
        log:
            "<logs>/download_contact_head.log",
        localrule: True
        conda:
            CPU_ENV
        params:
            program=in_clone("scripts/download_model.py"),
            name=settings["model"],
        shell:
            "python {params.program:q} --contact-head --model {params.name:q} --out {output:q} 2>&1 | tee {log:q}"


# Once for all jobs, so that those whose sequences are all in earlier results need no GPU. Its output is made anew only
# where embed jobs run anyway. It must not be `ancient` there: Snakemake would not see that they must run.
rule look_up:
    input:
        manifest="<results>/manifest.parquet",
        model=model_files,
        stamp=stamp("embed"),
        reuse=ancient(earlier_results),
    output:
        "<results>/earlier.json",
    log:
        "<logs>/look_up.log",
    benchmark:
        "<benchmarks>/look_up.tsv"
    localrule: not (earlier_results or own_files(Path(results.folder)))  # then there is nothing to look up
    conda:
        EMBED_ENV
    resources:
        mem_mb=job_resources.looking_up_mb,
        runtime=job_resources.looking_up_minutes,
    params:
        program=in_clone("scripts/look_up.py"),
        chunks=arguments_in_file("chunks.fasta"),
        embedding=arguments.embedding_arguments(settings),
        storage=arguments.storage_arguments(settings),
        own=unrecorded(results.folder),
        reuse=arguments_in_file("reuse"),
        place=jobs_elsewhere,
    shell:
        "python {params.program:q} --manifest {input.manifest:q} --chunks {params.chunks:q} --out {output:q} "
        "--own-results {params.own:q} --reuse {params.reuse:q} {params.embedding:q} {params.storage:q} {params.place:q} "
        "> {log:q} 2>&1"


rule embed_chunk:
    input:
        fasta="<results>/chunks/{scatteritem}.fasta",
        model=model_files,
        stamp=stamp("embed"),
        # Only the time of the job depends on their content, so a newer file is not a reason to embed again.
        reuse=ancient(earlier_results),
        earlier="<results>/earlier.json",
    output:
        embeddings=kept("<results>/chunks/{scatteritem}.arrow", settings["keep_chunks"]),
        stats="<results>/chunks/{scatteritem}.json",
        residues=kept(
            collect("<results>/chunks/{{scatteritem}}.{feature}.h5", feature=results.features),
            results.has_linked_residues,
        ),
    log:
        "<logs>/embed_chunk/{scatteritem}.log",
    conda:
        EMBED_ENV
    threads: embed_threads
    resources:
        gpu=job_resources.embedding_gpus,
        mem_mb=job_resources.embedding_mb,
        runtime=job_resources.embedding_minutes,
    params:
        program=in_clone("scripts/embed_chunk.py"),
        bits=BITS,
        residues=residue_arguments,
        embedding=arguments.embedding_arguments(settings),
        placement=unrecorded(arguments.placement_arguments(settings)),
        repeat=unrecorded(arguments.repeat_arguments(settings)),
        # Merged files of an earlier call; no input, because they are made of what this job writes.
        own=unrecorded(results.folder),
        reuse=arguments_in_file("reuse"),
    shell:
        "python {params.program:q} --fasta {input.fasta:q} --out {output.embeddings:q} --stats {output.stats:q} "
        "{params.residues:q} --reuse {params.reuse:q} --own-results {params.own:q} --earlier {input.earlier:q} "
        "--threads {threads} {params.embedding:q} {params.placement:q} {params.repeat:q} --terminal 3 3>&2 > {log:q} 2>&1"
