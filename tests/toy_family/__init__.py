"""A family of models of a few lines, which shows what docs/families.md asks for: blocks without attention."""

from packed_esm.families import Family, ModelShape

TOY = Family(
    name="Toy",
    models={"toy_small": ModelShape(3, 16, 1, hub_id="example/toy")},
    model_type="toy",
    tensor=None,
    layer=rb"\blayers\.(\d{1,4})\.",
    model_class="toy_family.checkpoint.Toy",
    checkpoint="toy_family.checkpoint",
    packed="toy_family.packed",
    reference="toy_family.reference",
    reference_package="pip>=1",
)
