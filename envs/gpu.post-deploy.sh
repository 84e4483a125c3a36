# Snakemake runs this in the new environment. conda-forge's fair-esm would bring pytorch_geometric, which nothing uses.
python -m pip install --no-deps fair-esm==2.0.0
