"""What a recipe's values that are words and the sources of its reasons are called in Chinese.

It leaves the reasons to the trainer, which writes them in both languages.
"""

TEXTS_ZH = {
    "data": "数据",
    "owner's setting": "您的设置",
    "our measurement": "平台实测",
    "our default": "平台默认",
    "all linear layers but the head": "除输出头外的全部线性层",
    "answers only": "仅答案",
    "left out whole": "整行略去",
    "length buckets": "按长度分桶",
    "cosine": "余弦",
    "off": "关闭",
}
"""Sources that are no citations, and values that are words."""


def say_recipe(text: object, *, chinese: bool) -> str:
    """Return a value or the sources of one in a language; names of papers and libraries stay."""
    if not chinese:
        return str(text)
    return "；".join(TEXTS_ZH.get(part, part) for part in str(text).split("; "))
