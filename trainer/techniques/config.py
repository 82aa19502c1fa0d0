"""The sections of the weight techniques, and `WeightTechniques`, which `Config` inherits. Torch-free.

To add a technique, add its section here and a field of the same name to `WeightTechniques`.
"""

from typing import Annotated, Literal

from pydantic import Field

from trainer.quant.tensor_classes import TENSOR_CLASSES, TensorClass
from trainer.section import Section, Start


class WeightTechnique(Section):
    """A technique that changes the compute weights by the quantization scheme: `techniques/<name>.py`. Off by default."""

    @property
    def is_on(self) -> bool:
        raise NotImplementedError


class QatConfig(WeightTechnique):
    """Fake quantization of the compute weights with the exporter's own scheme, straight-through gradient."""

    enabled: bool = False
    start: Start = Start(kind="lr_scale", value=0.15)
    scope: Annotated[tuple[TensorClass, ...], Field(strict=False)] = TENSOR_CLASSES
    mode: Literal["ste", "swap"] = "ste"
    reset_ema: bool = False
    stop_swa: bool = False

    @property
    def is_on(self) -> bool:
        return self.enabled


class QnaConfig(WeightTechnique):
    """Quantization noise annealing (PR 975). magnitude 0 = off, 1 = half a quantization step at full LR."""

    magnitude: float = Field(0.0, ge=0)

    @property
    def is_on(self) -> bool:
        return self.magnitude > 0


class QuantNoiseConfig(WeightTechnique):
    """Quant-Noise (arXiv:2004.07320): the share of the weights that is fake-quantized at each step, drawn anew. 0 = off."""

    share: float = Field(0.0, ge=0, le=1)

    @property
    def is_on(self) -> bool:
        return self.share > 0


class WeightTechniques(Section):
    """One field per technique; the field's name is the key in a sweep file and `Technique.section`."""

    qat: QatConfig = QatConfig()
    qna: QnaConfig = QnaConfig()
    quant_noise: QuantNoiseConfig = QuantNoiseConfig()

    @property
    def weight_techniques(self) -> dict[str, WeightTechnique]:
        """Name -> section of every technique, on or off."""
        sections = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: section for name, section in sections.items() if isinstance(section, WeightTechnique)}
