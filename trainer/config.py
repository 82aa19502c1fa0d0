"""The configuration of one trial. Each section's model is in the package of the code that it configures.

The models are frozen and strict: an unknown key or a wrong type is an error. The defaults are the challenge's baseline
(`trainer/presets/sp1024-9l.yaml`); a preset lists what differs. Units are in the names: `_s` seconds, `_frac` share of the
run. Torch-free, so that the command line starts fast.
"""

from pydantic import Field

from trainer.averaging.config import AverageConfig
from trainer.data.config import DataConfig
from trainer.evaluation.config import EvalConfig
from trainer.model.config import ModelConfig, RecurrenceConfig
from trainer.optim.config import OptimConfig
from trainer.quant.config import ExportConfig, QuantConfig
from trainer.run.config import TrainConfig
from trainer.section import Rules
from trainer.techniques.config import WeightTechniques


class Config(WeightTechniques):
    """All settings of one trial that can change its numbers, except the data's content and the number of ranks."""

    model: ModelConfig = ModelConfig()
    recurrence: RecurrenceConfig = RecurrenceConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    optim: OptimConfig = OptimConfig()
    average: AverageConfig = AverageConfig()
    quant: QuantConfig = QuantConfig()
    export: ExportConfig = ExportConfig()
    eval: EvalConfig = EvalConfig()
    seed: int = Field(1337, ge=0, lt=2**31)  # initialization and noise, not data order; sweeps set it by `seeds`

    def rules(self) -> Rules:
        layers, train = self.model.layers, self.train
        is_outside = any(not 0 <= i < layers for i in self.recurrence.layers)
        yield is_outside, "recurrence.layers", f"must be within 0..{layers - 1}"
        yield self.recurrence.last_layers > layers, "recurrence.last_layers", f"must be at most {layers}"
        fix = f"must be a multiple of train.seq_len {train.seq_len}"
        yield train.batch_tokens % train.seq_len, "train.batch_tokens", fix
