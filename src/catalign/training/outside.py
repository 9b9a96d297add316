"""What a recipe names from outside the package."""

from catalign.decoding.scores import increments_named
from catalign.objectives.outside import losses_named
from catalign.plugins import is_outside, load
from catalign.training.negatives import NegativeSampler
from catalign.training.recipe import AnyRecipe, PreferenceRecipe


def import_named(recipe: AnyRecipe) -> None:
    """Import objective, sampler of negatives and validation score that a recipe names, before anything else is done.

    Raises:
        UserError: one of them is not there, or does not fit its protocol.
    """
    if is_outside(recipe.objective.name):
        losses_named(recipe.objective.name)
    if isinstance(recipe, PreferenceRecipe) and is_outside(recipe.negatives.kind):
        load(recipe.negatives.kind, NegativeSampler, where="negatives")
    if recipe.validation is not None and is_outside(recipe.validation.score):
        increments_named(recipe.validation.score)
