"""The settings that a run will have, as far as they are known where there is no device.

What `auto` becomes is known only on the device. There the settings of earlier results stand for it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from ..checkpoints.headers import layer_count
from ..checkpoints.registry import model_name
from ..outputs.columns import resolve_layers
from ..store.settings import BITS, differences
from ..system.gpu_lease import has_gpu
from ..system.versions import backend_version, installed_version
from .options import EmbedOptions, StorageOptions

# The keys of settings of which `auto`, or the checkpoint, decides on the device.
OF_DEVICE = ("device", "dtype", "attention", "kernels", "tokens_per_pack", "contact_head_sha256")


@dataclass(frozen=True)
class ExpectedSettings:
    """The settings of a run, without a device.

    Attributes:
        known: {key: value}.
        is_on_gpu: whether jobs that run the model will have a CUDA device, where `device` is `auto`.
    """

    known: Mapping
    is_on_gpu: bool

    @classmethod
    def of(
        cls, options: EmbedOptions, storage: StorageOptions, model: str, model_sha256: str, on_cluster: bool
    ) -> "ExpectedSettings":
        """Return the settings of these options.

        Args:
            options, storage: of the run.
            model: the value of its key.
            model_sha256: of the checkpoint.
            on_cluster: other machines run the jobs; they ask for a GPU, unless `device` says otherwise.

        Raises:
            OptionError: a layer that the model does not have, or negative layers of a file that does not tell their
                number.
        """
        layers = options.layers
        count = layer_count(model, options.model) if min(layers) < 0 else max(layers)
        on_gpu = options.device == "cuda" or (options.device == "auto" and (on_cluster or has_gpu()))
        chosen = {
            "device": "cuda" if on_gpu else options.device,
            "dtype": options.dtype if options.dtype != "auto" else "fp16" if on_gpu else "fp32",
            "attention": options.attention if options.attention == "auto" else backend_version(options.attention),
            "tokens_per_pack": options.tokens_per_pack or "auto",
        }
        known = {
            "model": model_name(options.model),
            "model_sha256": model_sha256,
            "layers": resolve_layers(layers, count),
            "pooling": list(options.poolings),
            "include": list(options.include),
            "windows": asdict(options.windows) if options.windows else None,
            "bits": BITS,
            "torch": installed_version("torch"),
            **{key: value for key, value in chosen.items() if value != "auto"},
        }
        return cls(storage.of_embeddings(known), on_gpu)

    def why_not(self, settings: Mapping) -> str:
        """Return why values made with these settings cannot be those of the run; empty if they can."""
        told = {key: value for key, value in settings.items() if key in self.known or key not in OF_DEVICE}
        differing = differences(dict(self.known), told)
        if not self.is_on_gpu and settings.get("device") == "cuda":
            differing.append("device: no GPU / 'cuda'")
        for key in ("attention", "kernels"):
            value = str(settings.get(key))
            if (here := backend_version(value.split(" ")[0])) != value:
                differing.append(f"{key}: {here!r} / {value!r}")
        if not isinstance(settings.get("tokens_per_pack"), int):
            differing.append(f"tokens_per_pack: one / {settings.get('tokens_per_pack')}")
        return "; ".join(differing)

    def assumed(self, settings: Mapping) -> dict:
        """Return the settings that are taken from earlier results, because the run does not tell them."""
        return {key: settings[key] for key in OF_DEVICE if key in settings and key not in self.known}
