"""The sections of the weight techniques, and `WeightTechniques`, which `Config` inherits. Torch-free.

To add a technique, add its section here and a field of the same name to `WeightTechniques`.
"""

from typing import Annotated, Literal

from pydantic import Field

from trainer.quant.tensor_classes import TENSOR_CLASSES, TensorClass
from trainer.section import Section, Start


class WeightTechnique(Section):
    """Base of the sections of `trainer/techniques/<name>.py`. Such a technique uses the quantization scheme in training."""

    @property
    def is_on(self) -> bool:
        raise NotImplementedError


class QatConfig(WeightTechnique):
    """Quantization-aware training: fake quantization with the export's scheme, straight-through gradient."""

    enabled: bool = False  # train with fake quantization from `qat.start` on
    start: Start = Start(kind="lr_scale", value=0.15)
    scope: Annotated[tuple[TensorClass, ...], Field(strict=False)] = TENSOR_CLASSES  # classes to fake-quantize
    mode: Literal["ste", "swap"] = "ste"  # two names for one computation; both are used in published scripts
    reset_ema: bool = False  # restart the EMA from the current weights when QAT starts
    stop_swa: bool = False  # take no SWA snapshots once QAT is on

    @property
    def is_on(self) -> bool:
        return self.enabled


class QnaConfig(WeightTechnique):
    """Quantization noise annealing (PR 975). magnitude 0 = off, 1 = half a quantization step at full LR."""

    magnitude: float = Field(0.0, ge=0)  # noise in half quantization steps at full LR; 0 = off

    @property
    def is_on(self) -> bool:
        return self.magnitude > 0


class QuantNoiseConfig(WeightTechnique):
    """Quant-Noise (arXiv:2004.07320): fake quantization of a random share of the weights at each step."""

    share: float = Field(0.0, ge=0, le=1)  # share of the weights; 0 = off

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
        """Return name -> section of every technique, on or off."""
        sections = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: section for name, section in sections.items() if isinstance(section, WeightTechnique)}
