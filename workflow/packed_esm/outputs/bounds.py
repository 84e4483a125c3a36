"""Tolerances for differences from fair-esm, by dtype of the matrix products."""

# relative_l2 and residue_cosine: about 3.5 times the largest error that tests/benchmarks/accuracy.py measured over all
# backends and the shapes from 3M to 650M on an H200 (relative L2 1.6e-6, 8.9e-4, 6.9e-3; 1 - cosine 5e-12, 6e-6, 2e-4).
# The factor leaves room for other weights.
# All others: the largest error that the same program measured on an H100 (the trained 3M; 8M and 650M with random
# weights) and on a CPU (3M and 8M), with contact heads of random weights and with one nonzero weight in ten. For
# fp32, fp16, bf16: KL at a residue 6.5e-10, 2.2e-3, 0.11; mean KL 1.5e-10, 6.2e-4, 1.2e-2; contacts: sum of
# differences at a residue 1.7e-5, 5.5e-2, 0.45; 1 - precision 0, 2.9e-4, 7.5e-3; 1 - correlation 2.6e-11, 4.4e-5,
# 5.3e-3. The bounds are 3.5 times these errors, and 12 (3.5 squared) times for KL and correlation, which grow with
# the square of an error. Precision and correlation are at least 1e-5 and 1e-9 below 1, because rounding can swap
# pairs of nearly equal probability. The factor is smaller where a wrong map would pass otherwise: 2 for the
# differences in bf16. Maps with the residues in a random order had a correlation of at most 0.2 (from 11 residues
# on).
# int8: cosine 0.999 is required, not measured; a mean vector's L2 of 1.4e-2 is a cosine of 0.9999. relative_l2 is 2.9
# times the 1.2e-2 of the demonstration model. Logits, marginals and contacts have the bounds of bf16, which are wide
# for it: KL 7.3e-3 at a residue and 1.3e-3 on average, sum of differences 0.11, 1 - precision 2.6e-3, 1 - correlation
# 4.9e-4 (demonstration model, random contact head).
# marginals_rms: of differences of two log-probabilities. For small errors d of log-probabilities the KL divergence is
# half the variance of d, so the bound is 2 sqrt(KL), where KL is the bound of the mean KL.
BOUNDS = {
    "relative_l2": {"fp32": 5e-6, "fp16": 3e-3, "bf16": 2.5e-2, "int8": 3.5e-2},
    "mean_relative_l2": {"fp32": 5e-6, "fp16": 3e-3, "bf16": 2.5e-2, "int8": 1.4e-2},
    "residue_cosine": {"fp32": 0.99999999, "fp16": 0.9999, "bf16": 0.995, "int8": 0.999},
    "logits_kl_max": {"fp32": 8e-9, "fp16": 2.6e-2, "bf16": 1.3, "int8": 1.3},
    "logits_kl_mean": {"fp32": 2e-9, "fp16": 7.4e-3, "bf16": 0.15, "int8": 0.15},
    "marginals_rms": {"fp32": 9e-5, "fp16": 0.17, "bf16": 0.77, "int8": 0.77},
    "contacts_abs_per_residue": {"fp32": 6e-5, "fp16": 0.19, "bf16": 0.9, "int8": 0.9},
    "contacts_precision": {"fp32": 0.99999, "fp16": 0.999, "bf16": 0.974, "int8": 0.974},
    "contacts_correlation": {"fp32": 0.999999999, "fp16": 0.9995, "bf16": 0.936, "int8": 0.936},
}


def tolerance(dtype: str) -> dict[str, float]:
    """Return {name of BOUNDS: bound} for a dtype: fp32, fp16, bf16 or int8."""
    return {name: by_dtype[dtype] for name, by_dtype in BOUNDS.items()}
