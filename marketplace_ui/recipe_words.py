"""What a recipe's values, reasons and sources are called in Chinese; the trainer says them in English.

It leaves the names of the values to `marketplace_ui.journey_words`.
"""

from hub.web import request_language

RECIPE_REASONS_ZH = {
    "rank": "足以记住几千行数据的规律，且能装入每个推理池",
    "alpha": "各种秩都固定，学习率不随秩变化",
    "dropout": "由早停防止过拟合，断点续训结果一致",
    "learning_rate": "按基座宽度、数据量和轮数计算",
    "epochs": "按数据行数和基座大小选定",
    "batch_tokens": "按每行平均词元数凑成一步",
    "max_length": "按最长的数据行取整，不超过基座上下文",
    "warmup_ratio": "前 3 % 的步数逐渐升高学习率",
    "final_lr_ratio": "余弦下降到十分之一",
    "weight_decay": "LoRA 本身已是低秩，无需衰减",
    "clip_norm": "通行做法",
    "validations": "全程在留出数据上看十次",
    "patience": "连续两次没有改善就停止",
    "min_delta": "损失改善达到 0.2 % 才算改善",
    "evaluate_rows": "使评测区间约为 ±4 个百分点",
    "max_new_tokens": "按数据中最长的答案加余量",
    "use_dora": "共享引擎的槽位装不下 DoRA，评测和服务时并入基座权重，单独占一台引擎",
    "targets": "只改注意力层学得更少；引擎不加载输出头的适配器",
    "adapter_dtype": "微小的更新不会被舍入丢掉",
    "base_dtype": "与该类设备上服务时的精度一致",
    "step_dtype": "设备算得更快时用 bf16，损失始终用 fp32",
    "loss": "只学习答案及其结束符；学习问题无助于回答",
    "over_length": "截断的行会教模型半途停下；会告知行号，且不计费",
    "batching": "长度相近的行同在一步，少用填充；在 CPU 上拼接更慢",
    "schedule": "先线性预热，再余弦下降到末尾比例",
    "optimizer": "betas 为 0.9 与 0.999，融合实现",
    "gradient_checkpointing": "重复计算激活会慢五分之一以上",
}
"""Why a value was chosen, in Chinese; the trainer's own reason with its figures stands beside it in English."""

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


def explain_value(name: str) -> str:
    """Return the Chinese reason of a recipe's value; empty for a value without one."""
    return RECIPE_REASONS_ZH.get(name, "")


def say_recipe(text: object) -> str:
    """Return a value or the sources of one in the request's language; names of papers and libraries stay."""
    if request_language() != "zh":
        return str(text)
    return "；".join(TEXTS_ZH.get(part, part) for part in str(text).split("; "))
