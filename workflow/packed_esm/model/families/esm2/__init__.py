"""ESM-2 (Lin et al. 2023), in the classes of fair-esm."""

from ....families import CONTACT_HEAD, ESM2, LM_HEAD, Family, ModelShape

FAMILY = Family(
    name=ESM2,
    # Table S1 of the paper; names of fair-esm's esm/pretrained.py.
    models={
        "demo": ModelShape(6, 192, 12),
        "esm2_t6_8M_UR50D": ModelShape(
            6, 320, 20, "c3c1145126ec08895c39c24a5df5e6f899441bf641eb09c72504ef9b7acd9e40", has_contact_head=True
        ),
        "esm2_t12_35M_UR50D": ModelShape(12, 480, 20, has_contact_head=True),
        "esm2_t30_150M_UR50D": ModelShape(30, 640, 20, has_contact_head=True),
        "esm2_t33_650M_UR50D": ModelShape(33, 1280, 20, has_contact_head=True),
        "esm2_t36_3B_UR50D": ModelShape(36, 2560, 40, has_contact_head=True),
        "esm2_t48_15B_UR50D": ModelShape(48, 5120, 40, has_contact_head=True),
    },
    model_type="esm",
    tensor=None,
    layer=rb"\b(?:layers|encoder\.layer)\.(\d{1,4})\.",
    model_class="esm.model.esm2.ESM2",
    checkpoint=f"{__name__}.checkpoint",
    packed=f"{__name__}.packed",
    reference="packed_esm.validation.reference_model",
    reference_package="fair-esm",
    heads=(LM_HEAD, CONTACT_HEAD),
    has_int8=True,
)
