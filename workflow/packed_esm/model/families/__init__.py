"""One folder for each family of models; `packed_esm.families` finds them. See docs/families.md."""
