"""Renders one chat template inside a process that its parent may kill: time, memory and output are capped.

Run by path, never imported: stdin holds {"template", "messages", limits}, stdout gets one JSON line.
It leaves the verdict to `registry.template_check`.
"""

import json
import resource
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class GenerationBlock(Extension):
    """The `{% generation %}` tag of transformers, which marks what the assistant said; rendered as its content."""

    tags = {"generation"}  # noqa: RUF012 -- jinja2 reads a plain set

    def parse(self, parser: Parser) -> nodes.Node:
        """Return the block's body in a scope of its own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def render(template: str, messages: list[dict[str, str]]) -> str:
    """Render as transformers does (same sandbox, same globals)."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlock, loopcontrols]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False)
    globals_: dict[str, Callable[..., Any]] = {"raise_exception": _raise, "strftime_now": _now}
    environment.globals.update(globals_)
    return environment.from_string(template).render(
        messages=messages, add_generation_prompt=True, tools=None, documents=None, bos_token="", eos_token=""
    )


def _raise(message: str) -> None:
    raise TemplateError(message)


def _now(layout: str) -> str:
    return datetime.now(UTC).strftime(layout)


def _limit(cpu_s: int, memory_bytes: int) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    spent_s = int(used.ru_utime + used.ru_stime) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (spent_s + cpu_s, spent_s + cpu_s))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Read the job, render, answer."""
    job = json.load(sys.stdin)
    _limit(job["cpu_s"], job["memory_bytes"])
    try:
        text = render(job["template"], job["messages"])
        answer = {"text": text[: job["output_chars"] + 1]}
    except MemoryError:
        answer = {"error": "it needs too much memory"}
    except Exception as error:  # noqa: BLE001 -- whatever a stranger's template raises is the answer
        answer = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
