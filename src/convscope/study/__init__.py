"""Studies: shipped ones and the user's own, from a spec to an evaluated run."""

from convscope.study.networks import anatomy_by_name
from convscope.study.run import find_spec, resume_run, run_study, shipped_studies, train_study

__all__ = ["anatomy_by_name", "find_spec", "resume_run", "run_study", "shipped_studies", "train_study"]
