"""The settings that a search draws: never the same twice, and those of a random search from seed and number alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count, islice, product
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from convscope.study.database import quiet_optuna
from convscope.study.spec import Range, StudySpec

_DRAWS = 50  # from one sampler, for settings that are not taken

Drawn = tuple[float, ...]
"""Settings that a search has drawn, a number for each key of the sweep; equal where the settings are."""


def draw(spec: StudySpec, number: int, taken: set[Drawn], study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
    """The settings of a unit of work of a search, as Optuna keeps them.

    The study's sampler is asked until it draws settings that are not taken; where it draws the same again and again, it is the
    first that is left. Settings and seed fix a run to the bit, so a second one of them would tell nothing.
    """
    sampler, kinds = _sampler(spec, number), space(spec)
    for _ in range(_DRAWS):
        drawn = {key: sampler.sample_independent(study, trial, key, kind) for key, kind in kinds.items()}
        if identity(spec, drawn) not in taken:
            return drawn
    every = (dict(zip(kinds, values, strict=True)) for values in product(*map(_all_values, spec.sweep.values())))
    return next((each for each in every if identity(spec, each) not in taken), drawn)


def space(spec: StudySpec) -> dict[str, BaseDistribution]:
    """What the values of each key are drawn from."""
    return {key: _distribution(values) for key, values in spec.sweep.items()}


def _distribution(values: Any) -> BaseDistribution:
    if not isinstance(values, Range):
        return CategoricalDistribution(_choices(values))
    if values.is_whole:
        return IntDistribution(int(values.low), int(values.high), step=int(values.step or 1), log=values.log)
    return FloatDistribution(values.low, values.high, step=values.step, log=values.log)


def _all_values(values: Any) -> list[Any]:
    """All that can be drawn for a key, as Optuna keeps it; none of a range that is continuous."""
    if not isinstance(values, Range):
        return _choices(values)
    return [min(values.low + n * (values.step or 1), values.high) for n in range(values.n_values or 0)]


def identity(spec: StudySpec, params: Mapping[str, Any]) -> Drawn:
    """Equal for two draws of the same settings; from their values as Optuna keeps them."""
    return tuple(float(f"{kind.to_internal_repr(params[key]):.12g}") for key, kind in space(spec).items())


def _sampler(spec: StudySpec, number: int) -> BaseSampler:
    """A new one for each unit of work, from seed and number alone: so a random search is the same with any workers."""
    seed = int(np.random.SeedSequence((spec.recipe["seed"], number)).generate_state(1)[0])
    if spec.sampler != "tpe":
        return RandomSampler(seed)
    # Optuna 4 warns of constant_liar, by which trials that go on count as bad, so that workers spread out.
    with quiet_optuna():
        return TPESampler(seed=seed, constant_liar=True)


def _choices(values: tuple[Any, ...]) -> list[Any]:
    """Values as Optuna can keep them: plain ones as they are, others, and those that compare equal, as text."""
    plain = all(isinstance(v, str | int | float | None) for v in values) and len(set(values)) == len(values)
    return list(values) if plain else list(map(repr, values))


def choice_of(values: tuple[Any, ...], value: Any) -> Any:
    """A listed value as Optuna keeps it."""
    choices = _choices(values)
    return value if value in choices else repr(value)


def settings_drawn(spec: StudySpec, params: Mapping[str, Any]) -> dict[str, Any]:
    """The settings themselves of what Optuna keeps, as far as they are drawn."""
    return {
        key: params[key] if isinstance(values, Range) else values[_choices(values).index(params[key])]
        for key, values in spec.sweep.items()
        if key in params
    }


def random_draws(spec: StudySpec) -> Iterator[dict[str, Any]]:
    """What a random search draws for one unit of work after another, as Optuna keeps it."""
    with quiet_optuna():
        study = optuna.create_study()
    trial, taken = optuna.trial.create_trial(state=TrialState.RUNNING), set[Drawn]()
    for number in count():
        params = draw(spec, number, taken, study, trial)
        taken.add(identity(spec, params))
        yield params


def drawn_beforehand(spec: StudySpec) -> list[dict[str, Any]]:
    """The settings that a random search of so many runs will draw; none where they follow from results or time."""
    if spec.sampler != "random" or spec.n_trials is None:
        return []
    return [settings_drawn(spec, params) for params in islice(random_draws(spec), spec.n_trials)]
