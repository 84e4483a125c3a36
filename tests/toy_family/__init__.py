"""A family of models of a few lines, which shows what docs/families.md asks for: blocks without attention."""

from packed_esm.families import Family

TOY = Family("Toy", "toy_family", "pip>=1", model_type="toy")
