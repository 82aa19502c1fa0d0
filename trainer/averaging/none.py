"""No averaging: the weights of the last step."""

from torch import Tensor

from trainer.averaging.base import Average, NamedTensors, copy_tensors
from trainer.optim.schedule import TrainProgress
from trainer.records.results import AverageRecord


class Last(Average):
    def update(self, master: NamedTensors, now: TrainProgress, is_qat: bool) -> None: ...

    def weights(self, master: NamedTensors) -> dict[str, Tensor]:
        return copy_tensors(master)

    def record(self) -> AverageRecord:
        return AverageRecord(key=self.key, snapshots=1)


build = Last
