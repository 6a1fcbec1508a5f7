"""Values of a recipe and sources of its reasons in the language of the page.

It leaves the words to `hub.tuning.recipe_words` and the names of the values to `marketplace_ui.journey_words`.
"""

from hub.tuning import recipe_words
from hub.web import request_language


def say_recipe(text: object) -> str:
    """Return a value or the sources of one in the request's language."""
    return recipe_words.say_recipe(text, chinese=request_language() == "zh")
