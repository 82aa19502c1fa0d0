"""Independent random draws, the baseline for every other sampler."""

from optuna.samplers import RandomSampler

from pgray.search.samplers import SearchSampler

SAMPLER = SearchSampler(lambda _, seed: RandomSampler(seed=seed))
