"""The model card of a tuned model as Markdown in English or Chinese; every figure comes from its run's manifest.

It leaves the manifest to `hub.tuning.papers`. Digests and figures only: no row, no file name, no reason of a person.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hub.tuning.gate import is_refuted
from hub.tuning.measures import MEASURES, Measured, list_measured
from hub.tuning.recipe_words import say_recipe


def write_card(manifest: Mapping[str, Any], *, chinese: bool = False) -> str:
    """Return the card; what an older manifest does not say is left out or shown as '-'."""
    card = _Card(manifest, chinese)
    parts = (card.head(), card.use(), card.scores(), card.gate(), card.data(), card.training(), card.recipe())
    return "\n\n".join((*parts, card.origin())) + "\n"


class _Card:
    """Sections of one card; `say` picks the language."""

    def __init__(self, manifest: Mapping[str, Any], chinese: bool) -> None:
        self._manifest = manifest
        self._chinese = chinese
        self._recipe: Mapping[str, Any] = manifest.get("recipe", {})

    def say(self, zh: str, en: str) -> str:
        """Return the text in the card's language."""
        return zh if self._chinese else en

    def head(self) -> str:
        """Name, base and its licence."""
        found, base = self._manifest, self._manifest["base"]
        licence = base.get("licence") or self.say("未声明", "not stated")
        text = self.say(
            f"`{base['name']}` 的 LoRA 适配器，由任务 `{found['run_id']}` 训练，随机种子 {found['seed']}。\n\n"
            f"基座的许可：{licence}。本模型的使用也受其约束。",
            f"A LoRA adapter of `{base['name']}`, made by run `{found['run_id']}` with seed {found['seed']}.\n\n"
            f"Licence of the base: {licence}. It binds the use of this model too.",
        )
        return f"# {found.get('model') or found['run_id']}\n\n{text}"

    def use(self) -> str:
        """What it is made for, and what is known of its limits."""
        lengths = [self._recipe.get(name, {}).get("value", "-") for name in ("max_length", "max_new_tokens")]
        return self.say(
            f"""## 用途与局限

- 用于训练数据所示的任务：同样的语言、形式和领域。其他任务没有测评。
- 留出数据与训练数据出自同一数据集；换一个来源，下面的成绩不一定成立。
- 训练只见过不超过 {lengths[0]} 个词元的对话，测评的回答最长 {lengths[1]} 个词元。
- 回答可能有误。涉及人身、安全或设备的决定须由人核实。""",
            f"""## Intended use and limits

- Made for the task that its training data show: the same language, form and field. Nothing else was measured.
- The held-out rows come from the same data set; with another source the scores below need not hold.
- Trained on conversations of up to {lengths[0]} tokens, measured on answers of up to {lengths[1]}.
- Answers can be wrong. A person checks what decides about people, safety or machines.""",
        )

    def scores(self) -> str:
        """The trainer's own scores of base and adapter, with intervals."""
        metrics = self._manifest.get("metrics", {})
        heads = self.say("模型|损失|完全一致|95 % 区间", "model|loss|exact match|95 % interval")
        rows = [
            (
                self.say(*names),
                _loss(part.get("loss")),
                _share(part.get("exact_match")),
                _range(part.get("exact_match_low"), part.get("exact_match_high"), _share),
            )
            for side, names in (("base", ("基座", "base")), ("adapter", ("本模型", "this model")))
            if isinstance(part := metrics.get(side), Mapping)
        ]
        n = metrics.get("n", "-")
        lead = self.say(
            f"训练端在 {n} 行留出数据上的成绩；损失的单位是每词元 nat，区间为 Wilson 区间。",
            f"By the trainer, on {n} rows that were not trained on; losses are nats a token, the interval is Wilson's.",
        )
        return f"## {self.say('留出数据成绩', 'Held-out scores')}\n\n{lead}\n\n{_table(heads.split('|'), rows)}"

    def gate(self) -> str:
        """The serving engine's scores before and after, what the gate decided by them, the proofs of what is served."""
        gate = self._manifest.get("gate") or {}
        title, label = self.say("发布门禁", "Publish gate"), self.say("结论", "Verdict")
        text = f"## {title}\n\n{label}: **{self._verdict(gate)}** (`{gate.get('code', '-')}`)" + self._proofs(gate)
        measured = list(list_measured(gate.get("scores") or {}))
        if not measured:
            return text + "\n\n" + self.say("没有服务引擎的成绩。", "There are no scores of a serving engine.")
        counts = gate["scores"]["n"], gate["scores"].get("probe", {}).get("n", 0)
        lead = self.say(
            f"在服务引擎上问同样的问题：留出数据 {counts[0]} 行，通用题 {counts[1]} 道。"
            "损失的单位是每词元 nat，其余提升以百分点计。",
            f"The same was asked on the serving engine: {counts[0]} held-out rows, {counts[1]} general questions. "
            "Losses are nats a token; other gains are percentage points.",
        )
        heads = self.say(
            "指标|之前（基座）|之后（本模型）|提升的 95 % 区间",
            "measure|before (base)|after (this model)|95 % interval of the gain",
        )
        return f"{text}\n\n{lead}\n\n{_table(heads.split('|'), [self._measure(item) for item in measured])}"

    def _verdict(self, gate: Mapping[str, Any]) -> str:
        """A proof that failed outweighs every score and every person."""
        if is_refuted(gate):
            return self.say("已隔离：下面的核验未通过", "quarantined: a proof below failed")
        verdict = self.say("通过", "passed") if gate.get("passed") else self.say("暂缓", "held back")
        if "override" in gate:
            verdict += self.say("，后经人工决定发布", ", published later on a person's decision")
        return verdict

    def _proofs(self, gate: Mapping[str, Any]) -> str:
        """Whether each engine answered with the log-probabilities of the trainer, and how far apart they were."""
        names = {
            "parity": self.say("评测引擎上的核验", "Proof on the engine of the gate"),
            "served": self.say("上线引擎上的核验", "Proof on the serving engine"),
        }
        lines = []
        for key, name in names.items():
            proof = gate.get(key)
            if proof is None:
                continue
            line = f"- {name}: `{proof['code']}`"
            if "adapter_error" in proof:
                base, ours, effect = (f"{proof[part]:.4f}" for part in ("base_error", "adapter_error", "served_effect"))
                line += self.say(
                    f"；每个答案词元的对数概率与训练端相差 {base}（基座）、{ours}（本模型）nat，"
                    f"允许 {proof['tolerance']:.2f}；本模型与基座相差 {effect}",
                    f"; log-probabilities per answer token differ from the trainer's by {base} (base) and {ours} (this "
                    f"model) nats, {proof['tolerance']:.2f} are allowed; this model differs from its base by {effect}",
                )
            lines.append(line)
        return "\n\n" + "\n".join(lines) if lines else ""

    def _measure(self, item: Measured) -> tuple[str, ...]:
        show = _loss if item.is_loss else _share
        gain = _range(item.gain_low, item.gain_high, _loss if item.is_loss else _points)
        return self.say(*MEASURES[item.name]), show(item.base), show(item.adapter), gain

    def data(self) -> str:
        """How much was trained on, by counts and digests."""
        found, data = self._manifest, self._manifest.get("data", {})
        long = found.get("over_length") or {}
        rows = (
            (self.say("训练行", "training rows"), data.get("train_rows")),
            (self.say("留出行", "held-out rows"), data.get("valid_rows")),
            (self.say("因超长而略去的行", "rows left out as too long"), sum(len(part) for part in long.values())),
            (self.say("训练词元（全部轮次）", "trained tokens, all passes"), found.get("trained_tokens")),
            (self.say("训练数据 sha256", "training data, sha256"), found["digests"]["train_digest"]),
            (self.say("留出数据 sha256", "held-out data, sha256"), found["digests"]["valid_digest"]),
        )
        return self._list(self.say("数据", "Data"), rows)

    def training(self) -> str:
        """On what machine and how long."""
        found = self._manifest
        hardware = found.get("hardware", {})
        processor = f"{hardware.get('processor') or hardware.get('machine', '-')}, {hardware.get('cores', '-')}"
        versions = ", ".join(f"{name} {version}" for name, version in sorted(found.get("versions", {}).items()))
        duration = found.get("device_ms")
        rows = (
            (self.say("加速卡", "accelerators"), ", ".join(hardware.get("accelerators", [])) or self.say("无", "none")),
            (self.say("处理器与核数", "processor, cores"), processor),
            (self.say("设备时间（秒）", "device time, s"), None if duration is None else f"{duration / 1000:.1f}"),
            (self.say("执行次数", "attempts"), found.get("attempts")),
            (self.say("学习率乘以", "learning rate, times"), found.get("rate_factor")),
            (self.say("软件版本", "software"), versions or None),
        )
        return self._list(self.say("训练环境", "Training"), rows)

    def _list(self, title: str, rows: Iterable[tuple[str, object]]) -> str:
        return f"## {title}\n\n{_table((self.say('项目', 'what'), self.say('数值', 'value')), rows)}"

    def recipe(self) -> str:
        """Every value with reason and source, then what has no setting."""
        heads = self.say("项目|取值|理由|依据", "setting|value|reason|source").split("|")
        items = [*sorted(self._recipe.items()), *sorted(self._manifest.get("fixed", {}).items())]
        rows = [
            (name, self._word(item["value"]), self._reason(item), self._word(item.get("source")))
            for name, item in items
        ]
        return f"## {self.say('配方', 'Recipe')}\n\n{_table(heads, rows)}"

    def _reason(self, item: Mapping[str, Any]) -> str:
        """An older manifest has its reasons in English alone."""
        return self.say(item.get("reason_zh") or item["reason"], item["reason"])

    def _word(self, text: object) -> object:
        return say_recipe(text, chinese=self._chinese) if isinstance(text, str) else text

    def origin(self) -> str:
        """The digests by which the result can be checked."""
        rows = (
            (self.say("基座权重", "weights of the base"), self._manifest["base"]["weights_digest"]),
            (self.say("训练代码", "training code"), self._manifest["code_digest"]),
            (self.say("计划", "plan"), self._manifest.get("plan_digest")),
        )
        table = _table((self.say("部分", "part"), "sha256"), rows)
        rest = self.say(
            "导出包中的 `manifest.json` 有其余内容；`sha256sum --check SHA256SUMS` 核对其中的文件。",
            "`manifest.json` in the export holds the rest; `sha256sum --check SHA256SUMS` checks its files.",
        )
        return f"## {self.say('来源', 'Where it comes from')}\n\n{table}\n\n{rest}"


def _table(heads: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [list(heads)]
    lines.append(["---"] * len(lines[0]))
    lines += [["-" if cell is None else str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _range(low: float | None, high: float | None, show: Callable[[float | None], str]) -> str:
    return "-" if low is None or high is None else f"{show(low)} … {show(high)}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.1f} %"


def _points(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:+.1f}"


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
