"""Turns the markdown that owners write into HTML that cannot run, load or restyle anything.

It leaves which text is shown where to the templates.
"""

import nh3
from markdown_it import MarkdownIt
from markupsafe import Markup

TAGS = {
    "p", "br", "hr", "h2", "h3", "h4", "ul", "ol", "li", "strong", "em", "code", "pre", "blockquote", "a",
    "table", "thead", "tbody", "tr", "th", "td", "del",
}  # fmt: skip
_LEVELS = {"h1": "h3", "h2": "h3", "h3": "h4", "h4": "h4", "h5": "h4", "h6": "h4"}
"""The page has its own h1 and h2; a text's headings stand below them."""


def render_markdown(text: str) -> Markup:
    """Return safe HTML: no raw HTML, no images (they would call other sites), links marked as foreign."""
    reader = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    tokens = reader.parse(text)
    for token in tokens:
        token.tag = _LEVELS.get(token.tag, token.tag)
    html = reader.renderer.render(tokens, reader.options, {})
    clean = nh3.clean(html, tags=TAGS, attributes={"a": {"href"}}, link_rel="nofollow noopener noreferrer")
    return Markup(clean)  # noqa: S704  cleaned the line before
