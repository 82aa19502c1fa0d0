"""The model, compiled once, and the validation split, which training and every evaluation of a job share."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from trainer.config import Config
from trainer.evaluation.config import EvalConfig
from trainer.evaluation.diagnostics import antilayer
from trainer.evaluation.scoring import Score, Validation, make_forward
from trainer.evaluation.ttt import TestTimeTraining
from trainer.model.model import build_model
from trainer.run.checkpoint import WeightsFile, load_weights
from trainer.run.dist import DistContext


@dataclass(frozen=True)
class Evaluation:
    """The scores of one export: weights of the last step, averaged float weights, and three of the unpacked artifact."""

    last: Score
    average: Score
    post_quant: Score
    sliding: Score | None
    ttt: Score | None
    eval_s: float  # of the artifact's scores
    antilayer: list[dict[str, float]] | None = None

    @property
    def scores(self) -> list[Score]:
        return [s for s in (self.last, self.average, self.post_quant, self.sliding, self.ttt) if s]

    @property
    def is_finite(self) -> bool:
        return all(math.isfinite(score.nats) for score in self.scores)


class EvalHarness:
    """Evaluates weights by the model and data of a job. Every score in a record comes from `score` or `score_ttt`."""

    def __init__(self, config: Config, dist: DistContext) -> None:
        self.config, self.dist, self.folder = config, dist, Path(config.data.path)
        self.model = build_model(config, dist.device)
        self.validation = Validation(self.folder, config.data.tokenizer, dist, config.model.vocab_size)
        self.forward = make_forward(self.model, config, dist.device)
        self._float_scores: dict[tuple[WeightsFile, EvalConfig], Score] = {}

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor]) -> None:
        for name, parameter in self.model.named_parameters():
            parameter.copy_(weights[name])

    def score(self, weights: Mapping[str, Tensor], settings: EvalConfig, stride: int) -> Score:
        """Load these weights and evaluate them."""
        self.load(weights)
        return self.validation.score(self.forward, settings, stride)

    def score_ttt(self, weights: Mapping[str, Tensor], settings: EvalConfig) -> Score:
        """Load these weights and evaluate them with test-time training."""
        self.load(weights)
        return TestTimeTraining(self.model, self.forward, self.validation, settings, self.dist).run()

    def float_score(self, file: WeightsFile, settings: EvalConfig) -> Score:
        """Evaluate float weights on disk without sliding windows. Trials that export the same average share the score."""
        if (file, settings) not in self._float_scores:
            self._float_scores[file, settings] = self.score(load_weights(file), settings, settings.seq_len)
        return self._float_scores[file, settings]

    def evaluate(
        self, weights: Mapping[str, Tensor], average: WeightsFile, last: WeightsFile, settings: EvalConfig
    ) -> Evaluation:
        """Evaluate one export.

        Args:
            weights: of the unpacked artifact.
            average, last: files of the averaged float weights and of the last step's.
        """
        last_score, average_score = self.float_score(last, settings), self.float_score(average, settings)
        started = time.perf_counter()
        post_quant = self.score(weights, settings, settings.seq_len)
        sliding = self.score(weights, settings, settings.stride) if settings.stride else None
        ttt = self.score_ttt(weights, settings) if settings.ttt.enabled else None
        eval_s = time.perf_counter() - started
        evaluation = Evaluation(last_score, average_score, post_quant, sliding, ttt, eval_s)
        if not settings.antilayer or not evaluation.is_finite:
            return evaluation
        rows = antilayer(weights, post_quant, lambda silenced: self.score(silenced, settings, settings.seq_len))
        return replace(evaluation, antilayer=rows)
