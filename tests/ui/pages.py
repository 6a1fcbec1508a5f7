"""Reads the HTML of pages for the tests: visible text with the names left out, addresses, forms."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "input", "br", "hr", "img", "rect", "path"}
SILENT = {"script", "style"}
CHINESE = re.compile(r"[\u4e00-\u9fff]")


@dataclass
class Reader(HTMLParser):
    """What one page says: text outside `translate="no"`, attributes that people read, addresses it loads."""

    texts: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    inline: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._open: list[tuple[str, bool]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        kept = values.get("translate") == "no" or (bool(self._open) and self._open[-1][1])
        if not kept:
            self.texts += [values[name] for name in ("title", "placeholder", "aria-label", "alt") if name in values]
        self._note(tag, values)
        if tag not in VOID:
            self._open.append((tag, kept))

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        silent = bool(self._open) and self._open[-1][0] in SILENT
        if data.strip() and not silent and not (self._open and self._open[-1][1]):
            self.texts.append(data.strip())

    def _note(self, tag: str, values: dict[str, str]) -> None:
        self.ids += [values["id"]] if "id" in values else []
        loaded = tag in ("script", "img", "iframe", "source") or (tag == "link" and values.get("rel") == "stylesheet")
        self.loads += [values[name] for name in ("src", "href") if loaded and name in values]
        self.links += [values["href"]] if tag == "a" and "href" in values else []
        self.inline += [name for name in values if name == "style" or name.startswith("on")]
        self.inline += [tag] if (tag == "script" and "src" not in values) or tag == "style" else []


def read_page(html: str) -> Reader:
    """Return what a page says and loads."""
    reader = Reader()
    reader.feed(html)
    return reader
