"""NSGA-II, Deb et al. 2002: a genetic algorithm. A generation is a fifth of `trials`, at least 4 and at most 50."""

from optuna.samplers import NSGAIISampler

from pgray.search.samplers import SearchSampler
from pgray.spec.search import Search


def _build(search: Search, seed: int) -> NSGAIISampler:
    # Optuna's default of 50 would leave most searches in the first generation, which is random.
    return NSGAIISampler(seed=seed, population_size=min(max(search.trials // 5, 4), 50))


SAMPLER = SearchSampler(_build, keeps_state_in_study=True)  # which trials belong to which generation
