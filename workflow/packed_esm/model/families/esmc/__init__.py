"""ESM C (EvolutionaryScale 2024), in the classes of transformers' `EsmcForMaskedLM`. Its residue tokens are ESM-2's."""

from ....families import Family, ModelShape

FAMILY = Family(
    name="ESM C",
    models={
        "esmc_300m": ModelShape(30, 960, 15, hub_id="biohub/ESMC-300M"),
        "esmc_600m": ModelShape(36, 1152, 18, hub_id="biohub/ESMC-600M"),
        "esmc_6b": ModelShape(80, 2560, 40, hub_id="biohub/ESMC-6B"),
    },
    model_type="esmc",
    tensor=rb"\btransformer\.blocks\.\d",
    layer=rb"\btransformer\.blocks\.(\d{1,4})\.",
    model_class=f"{__name__}.checkpoint.EsmC",
    checkpoint=f"{__name__}.checkpoint",
    packed=f"{__name__}.packed",
    reference=f"{__name__}.reference",
    reference_package="transformers>=5.24",
)
