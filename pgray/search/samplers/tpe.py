"""Tree-structured Parzen estimator, Bergstra et al. 2011: the default."""

from optuna.samplers import TPESampler

from pgray.search.samplers import SearchSampler
from pgray.spec.search import Search


def _build(search: Search, seed: int) -> TPESampler:
    # Keys that occur together are drawn together; otherwise a search with conditional keys draws each key by itself.
    return TPESampler(seed=seed, group=bool(search.when) and len(search.objectives or ()) < 2)


SAMPLER = SearchSampler(_build)
