"""Gaussian process with expected improvement. It draws conditional keys at random."""

from optuna.samplers import GPSampler

from pgray.search.samplers import SearchSampler

SAMPLER = SearchSampler(lambda _, seed: GPSampler(seed=seed))
