"""What a rerun differs in, in words of the page's language.

It leaves comparing to `hub.tuning.rerunning`.
"""

from hub.tuning.rerunning import CHOSEN_ANEW, Difference
from marketplace_ui.format import show_fen
from marketplace_ui.journey_words import word_of
from marketplace_ui.layout import translate
from marketplace_ui.recipe_words import say_recipe

_DIGEST_CHARS, _SHOWN_CHARS = 64, 12


def name_difference(name: str) -> str:
    """Return what is compared: a value of the recipe, a library, or one of the inputs."""
    group, _, part = name.partition(".")
    if group == "recipe":
        return word_of("recipe", part)
    if group == "versions":
        return translate(f"{part} 的版本", f"Version of {part}")
    names = {
        "base.weights_digest": translate("基座权重", "Weights of the base"),
        "base.tokenizer_digest": translate("基座分词器", "Tokenizer of the base"),
        "base.template_digest": translate("基座对话模板", "Chat template of the base"),
        "data.train_digest": translate("训练数据", "Training data"),
        "data.valid_digest": translate("留出数据", "Held-out data"),
        "seed": translate("随机种子", "Random seed"),
        "rate_factor": translate("学习率乘以", "Learning rate, times"),
        "code_digest": translate("训练代码", "Training code"),
        "offer.state": translate("算力报价", "Compute offer"),
        "price.list_fen": translate("同样用量的标价", "List price of the same use"),
    }
    return names[name]


def show_side(item: Difference, side: str) -> str:
    """Return one side of a difference; a digest by its first characters."""
    value = item["then"] if side == "then" else item["now"]
    if value is None:
        return translate("无", "none")
    if item["name"] == "price.list_fen":
        return show_fen(int(value))
    words = {
        CHOSEN_ANEW: translate("由规划重新选定", "chosen by the plan"),
        "open": translate("可下单", "open"),
        "withdrawn": translate("已下架", "withdrawn"),
    }
    text = words.get(str(value)) or say_recipe(value)
    return text[:_SHOWN_CHARS] if len(text) == _DIGEST_CHARS else text
