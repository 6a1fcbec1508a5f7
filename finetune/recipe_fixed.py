"""The choices of a run that have no setting, each with its reason and source, as plans and manifests list them.

Leaves making them to the code that they describe: `tokens`, `base`, `batches`, `loss` and `train`.
"""

from finetune.spec import Source, Value


def list_fixed(device: str, *, has_fast_bf16: bool) -> dict[str, Value]:
    """What every run on `device` does alike."""
    base = "fp32" if device == "cpu" else "bf16"
    step = "bf16" if has_fast_bf16 else "fp32"
    return _ALIKE | {
        "base_dtype": Value(
            base,
            "scored as it is served on this kind of device",
            Source.DEFAULT.value,
            "与该类设备上服务时的精度一致",
        ),
        "step_dtype": Value(
            step,
            "bf16 products wherever the device is faster in them; losses stay in fp32",
            Source.MEASURED.value,
            "设备算得更快时用 bf16，损失始终用 fp32",
        ),
    }


_ALIKE = {
    "targets": Value(
        "all linear layers but the head",
        "adapters of attention alone learn less; engines load none for the head",
        "LoRA Without Regret (Thinking Machines, 2025)",
        "只改注意力层学得更少；引擎不加载输出头的适配器",
    ),
    "adapter_dtype": Value(
        "fp32",
        "small updates are not lost in rounding",
        "PEFT, default of autocast_adapter_dtype",
        "微小的更新不会被舍入丢掉",
    ),
    "loss": Value(
        "answers only",
        "the assistant's answers with the end of their turn; questions teach no answering",
        "TRL, pull request 7230",
        "只学习答案及其结束符；学习问题无助于回答",
    ),
    "over_length": Value(
        "left out whole",
        "a row that was cut would teach to stop in the middle; it is told and not billed",
        "TRL, issue 3927",
        "截断的行会教模型半途停下；会告知行号，且不计费",
    ),
    "batching": Value(
        "length buckets",
        "rows of like length share a step, so that little is padded; packing is slower on a CPU",
        Source.MEASURED.value,
        "长度相近的行同在一步，少用填充；在 CPU 上拼接更慢",
    ),
    "schedule": Value(
        "cosine",
        "linear warm-up, then cosine down to the final share",
        Source.DEFAULT.value,
        "先线性预热，再余弦下降到末尾比例",
    ),
    "optimizer": Value(
        "AdamW",
        "betas 0.9 and 0.999, fused",
        "PyTorch, defaults of torch.optim.AdamW",
        "betas 为 0.9 与 0.999，融合实现",
    ),
    "gradient_checkpointing": Value(
        "off",
        "computing activations twice costs a fifth of the speed and more",
        Source.MEASURED.value,
        "重复计算激活会慢五分之一以上",
    ),
}
