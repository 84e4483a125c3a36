"""ESM-1b (Rives et al. 2021) and ESM-1v (Meier et al. 2021), in the classes of fair-esm.

Their blocks, their files and their reference are those of ESM-2. The positions are learned.
"""

from ....families import CONTACT_HEAD, LM_HEAD, Family, ModelShape

FAMILY = Family(
    name="ESM-1b and ESM-1v",
    # names of fair-esm's esm/pretrained.py
    models={
        "esm1b_t33_650M_UR50S": ModelShape(33, 1280, 20, has_contact_head=True),
        **{f"esm1v_t33_650M_UR90S_{number}": ModelShape(33, 1280, 20) for number in range(1, 6)},
    },
    model_type=None,
    tensor=rb"\bembed_positions\.weight",
    layer=rb"\blayers\.(\d{1,4})\.",
    model_class="esm.model.esm1.ProteinBertModel",
    checkpoint="packed_esm.model.families.esm2.checkpoint",
    packed=f"{__name__}.packed",
    reference="packed_esm.validation.reference_model",
    reference_package="fair-esm",
    heads=(LM_HEAD, CONTACT_HEAD),
    has_int8=True,
)
