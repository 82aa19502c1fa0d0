"""CMA-ES, Hansen 2016: one normal distribution over all keys that moves and changes shape; one objective, numbers only."""

from optuna.samplers import CmaEsSampler

from pgray.search.samplers import SearchSampler

SAMPLER = SearchSampler(
    lambda _, seed: CmaEsSampler(seed=seed),
    several_objectives=False,
    conditional_keys=False,
    choices=False,
    constraints=False,  # a draw that breaks one is discarded, as the algorithm's authors advise
    keeps_state_in_study=True,  # the distribution
)
