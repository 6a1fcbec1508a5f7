"""Whether a chat template is safe to render: size, time, memory, output, and that the user's words arrive.

It leaves rendering to the child process `template_child.py`; a template never runs in this process.
"""

import json
import subprocess
import sys
from pathlib import Path

from registry.report import Report

MAX_TEMPLATE_BYTES = 64 * 1024
_CHILD = Path(__file__).with_name("template_child.py")
_PROBE = "设备E-17轴承温度偏高 probe"
_LIMITS = {"cpu_s": 1, "memory_bytes": 512 * 1024 * 1024, "output_chars": 256 * 1024}
_WALL_S = 15.0


def check_template(template: str, report: Report) -> None:
    """Note in the report whether the template may be used; an empty one only warns."""
    size_bytes = len(template.encode("utf-8"))
    if not template:
        report.warn(
            "template.present",
            "没有对话模板，只能用于补全接口",
            "There is no chat template: only completions can be served",
            fix_zh="请加入 chat_template.jinja",
            fix_en="Add chat_template.jinja",
        )
    elif size_bytes > MAX_TEMPLATE_BYTES:
        _reject(
            report,
            f"有 {size_bytes} 字节，上限 {MAX_TEMPLATE_BYTES}",
            f"has {size_bytes} bytes, the limit is {MAX_TEMPLATE_BYTES}",
        )
    else:
        _check_rendering(template, report)


def render_template(template: str, messages: list[dict[str, str]]) -> dict[str, str]:
    """Render in a killable child; return {"text": …} or {"error": …}."""
    job = json.dumps({"template": template, "messages": messages, **_LIMITS})
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(_CHILD)],
            input=job.encode(),
            capture_output=True,
            timeout=_WALL_S,
            check=False,
            env={},
        )
    except subprocess.TimeoutExpired:
        return {"error": f"it took more than {_WALL_S:.0f} s"}
    if done.returncode != 0:
        return {"error": f"it took more than {_LIMITS['cpu_s']} s of processor time or 512 MiB of memory"}
    answer: dict[str, str] = json.loads(done.stdout)
    return answer


def _check_rendering(template: str, report: Report) -> None:
    answer = render_template(template, [{"role": "user", "content": _PROBE}])
    text = answer.get("text", "")
    if "error" in answer:
        _reject(report, f"无法渲染：{answer['error']}", f"cannot be rendered: {answer['error']}")
    elif len(text) > _LIMITS["output_chars"]:
        _reject(
            report,
            f"输出超过 {_LIMITS['output_chars']} 个字符",
            f"writes more than {_LIMITS['output_chars']} characters",
        )
    elif _PROBE not in text:
        _reject(report, "没有输出用户的内容", "drops what the user said")
    else:
        report.accept("template.renders", "对话模板可用", "The chat template renders")


def _reject(report: Report, zh: str, en: str) -> None:
    report.reject(
        "template.renders",
        f"对话模板{zh}",
        f"The chat template {en}",
        fix_zh="请使用原模型作者发布的模板，或更简单的模板",
        fix_en="Use the template published by the model's author, or a simpler one",
        subject="chat_template",
    )
