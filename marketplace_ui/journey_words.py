"""Words of data checks, recipes, run reasons, accounts and engines in both languages, with the tone of their badges.

It leaves states that every page shows to `marketplace_ui.words`.
"""

from hub.web import request_language
from marketplace_ui.words import UnknownWordError, Word

FAMILIES: dict[str, dict[str, Word]] = {
    "severity": {
        "E": Word("错误：必须修正", "Errors: must be corrected", "bad"),
        "W": Word("提示：请确认", "Warnings: to acknowledge", "wait"),
        "F": Word("已自动修正", "Corrected for you", "good"),
        "I": Word("供参考", "For information", "info"),
    },
    "fix": {
        "upload_again": Word("改正后重新上传", "Correct the file and upload it again"),
        "convert": Word("转换编码", "Convert the encoding"),
        "map_columns": Word("在下方指定列的用途", "Say below what the columns mean"),
        "correct_row": Word("改正这些行，或去除", "Correct these rows, or leave them out"),
        "rename_roles": Word("统一角色名", "Rename the roles"),
        "remove_rows": Word("去除这些行", "Leave these rows out"),
        "mask": Word("以占位符代替", "Put a mask in their place"),
        "normalise": Word("统一写法", "Write them in one way"),
        "fill_cells": Word("填入合并单元格的值", "Fill in the value of the merged cell"),
        "add_rows": Word("补充数据", "Add rows"),
        "review": Word("请看一眼是否如此", "See whether it is meant so"),
    },
    "fix_all": {
        "drop": Word("去除全部这些行", "Leave all of these rows out"),
        "mask": Word("全部脱敏", "Mask all of them"),
        "normalise": Word("全部统一", "Correct all of them"),
    },
    "preview": {
        "working": Word("分词中", "In the making", "wait"),
        "ready": Word("可查看", "Ready", "good"),
        "failed": Word("失败", "Failed", "bad"),
    },
    "split_by": {
        "group": Word("按组：同一组的行都在同一边", "By group: the rows of a group stay on one side"),
        "prompt": Word("按问题：相同的问题都在同一边", "By question: equal questions stay on one side"),
        "marked": Word("按您的标记", "By your own marks"),
        "file": Word("按您的验证文件", "By your own validation file"),
    },
    "column": {
        "prompt": Word("问题（输入）", "Question (input)"),
        "completion": Word("答案（输出）", "Answer (output)"),
        "system": Word("系统提示", "System prompt"),
        "group": Word("分组（同组不跨训练与验证）", "Group (kept on one side of the split)"),
        "split": Word("划分标记（train 或 valid）", "Split mark (train or valid)"),
    },
    "recipe": {
        "rank": Word("LoRA 秩", "LoRA rank"),
        "alpha": Word("LoRA alpha", "LoRA alpha"),
        "dropout": Word("随机失活", "Dropout"),
        "learning_rate": Word("学习率", "Learning rate"),
        "epochs": Word("训练轮数", "Passes over the data"),
        "batch_tokens": Word("每步词元数", "Tokens per step"),
        "max_length": Word("最大长度（词元）", "Longest row (tokens)"),
        "warmup_ratio": Word("预热比例", "Warm-up share"),
        "final_lr_ratio": Word("末尾学习率比例", "Final learning-rate share"),
        "weight_decay": Word("权重衰减", "Weight decay"),
        "clip_norm": Word("梯度裁剪", "Gradient clipping"),
        "validations": Word("验证次数", "Looks at held-out rows"),
        "patience": Word("早停耐心", "Patience before stopping"),
        "min_delta": Word("最小改善", "Least gain that counts"),
        "evaluate_rows": Word("评测行数", "Rows scored"),
        "max_new_tokens": Word("最长答案（词元）", "Longest answer (tokens)"),
        "use_dora": Word("DoRA 适配器", "DoRA adapter"),
        "targets": Word("训练的层", "Layers that learn"),
        "adapter_dtype": Word("适配器精度", "Precision of the adapter"),
        "base_dtype": Word("基座精度", "Precision of the base"),
        "step_dtype": Word("训练步精度", "Precision of a step"),
        "loss": Word("计算损失的部分", "What the loss counts"),
        "over_length": Word("超长的行", "Rows that are too long"),
        "batching": Word("凑批方式", "How rows share a step"),
        "schedule": Word("学习率曲线", "Learning-rate schedule"),
        "optimizer": Word("优化器", "Optimizer"),
        "gradient_checkpointing": Word("梯度检查点", "Gradient checkpointing"),
    },
    "stage": {
        "preparing": Word("准备数据与模型", "Preparing data and model"),
        "training": Word("训练", "Training"),
        "evaluating_adapter": Word("评测适配器", "Scoring the adapter"),
        "evaluating_base": Word("评测基座", "Scoring the base"),
        "packing": Word("打包适配器", "Packing the adapter"),
    },
    "health": {
        "better_than_base": Word("留出损失低于基座", "Held-out loss below the base's"),
        "held_out_steady": Word("留出损失没有回升", "Held-out loss not rising again"),
        "not_memorised": Word("训练损失没有远低于留出损失", "Training loss not far below held-out loss"),
        "gradient_norm": Word("梯度范数", "Norm of the gradient"),
    },
    "unmeasured": {
        "no_room": Word("当时没有机器能再启动一个评测引擎。", "No machine had room for one more engine."),
        "no_engine": Word("当时没有评测引擎启动起来。", "No engine came up in time."),
        "engine_failed": Word("评测引擎未能加载新模型。", "The engine could not load the new model."),
        "engine_refused": Word("评测引擎拒绝了问题。", "The engine refused the questions."),
        "no_rows": Word(
            "没有可以问的留出数据：数据已删除，或每一行都超过引擎的上下文长度。",
            "There were no held-out rows to ask: the data were deleted, or each is longer than the engine's context.",
        ),
    },
    "case": {
        "better": Word("改对", "Now right", "good"),
        "worse": Word("改错", "Now wrong", "bad"),
        "right": Word("都对", "Both right", "quiet"),
        "wrong": Word("都不对", "Both wrong", "wait"),
    },
    "tryout": {
        "queued": Word("等待引擎", "Waits for an engine", "wait"),
        "wanted": Word("加载中", "Loading", "wait"),
        "ready": Word("可试用", "Answers", "good"),
        "failed": Word("加载失败，重试中", "Failed, being retried", "bad"),
    },
    "meter_alarm": {
        "counters_differ": Word("引擎计数与见证不符", "Counters and witness differ", "bad"),
        "records_missing": Word("有调用超过 10 分钟未上报", "Calls unreported for over 10 minutes", "bad"),
        "billed_above_engine": Word("计费多于引擎计数", "Billed above the engine's count", "bad"),
    },
    "fault": {
        "user": Word("数据或设置", "Data or settings", "wait"),
        "platform": Word("平台", "The platform", "bad"),
        "provider": Word("算力供应商", "The compute provider", "bad"),
        "cancel": Word("您已取消", "You cancelled"),
        "none": Word("无", "Nobody"),
    },
    "attempt": {
        "active": Word("进行中", "Running", "info"),
        "ended": Word("已结束", "Ended", "good"),
        "lost": Word("已失联", "Lost", "bad"),
    },
    "account": {
        "bank": Word("银行存款", "Bank"),
        "firm_cash": Word("企业资金", "Cash of firms"),
        "appropriation": Word("财政拨款", "Appropriations"),
        "programme_fund": Word("项目资金池", "Programme funds"),
        "grant": Word("券额", "Vouchers granted"),
        "clearing": Word("结算过渡", "Clearing"),
        "payable": Word("应付卖方", "Payable to sellers"),
        "pool_income": Word("推理池收入", "Income of the pool"),
        "platform_income": Word("平台收入", "Income of the platform"),
        "platform_cost": Word("平台成本", "Cost of the platform"),
        "authority_receivable": Word("应收主管部门", "Owed by the authority"),
        "firm_receivable": Word("应收企业（追回）", "Owed by firms (clawed back)"),
        "breakage": Word("失效券额", "Lapsed vouchers"),
    },
    "priced": {
        "tuning": Word("调优服务", "Tuning service"),
        "base": Word("基座模型调用", "Calls of base models"),
        "adapter": Word("适配器调用", "Calls of adapters"),
    },
    "paper": {
        "contract": Word("合同", "Contract"),
        "invoice": Word("发票", "Invoice"),
        "payment": Word("付款凭证", "Proof of payment"),
        "delivery": Word("交付证明", "Proof of delivery"),
        "filing": Word("备案证明", "Proof of filing"),
        "other": Word("其他材料", "Other paper"),
    },
    "voucher_step": {
        "check": Word("初审通过", "Checked", "info"),
        "return": Word("退回补充", "Returned for completion", "wait"),
        "approve": Word("批准", "Approved", "good"),
        "refuse": Word("不予通过", "Refused", "bad"),
    },
    "replica": {
        "starting": Word("启动中", "Starting", "wait"),
        "warming": Word("预热中", "Warming up", "wait"),
        "ready": Word("运行中", "Ready", "good"),
        "draining": Word("排空中", "Draining", "wait"),
        "stopped": Word("已停止", "Stopped"),
        "failed": Word("失败", "Failed", "bad"),
    },
    "loaded": {
        "fetching": Word("下载中", "Being fetched", "wait"),
        "loading": Word("加载中", "Loading", "wait"),
        "warming": Word("预热中", "Warming up", "wait"),
        "ready": Word("可用", "Ready", "good"),
        "failed": Word("失败", "Failed", "bad"),
    },
    "node": {
        "up": Word("在线", "Up", "good"),
        "draining": Word("不接新任务", "Takes nothing new", "wait"),
        "down": Word("离线", "Down", "bad"),
    },
}

REASONS: dict[str, tuple[str, str]] = {
    "stop_token_not_trained": (
        "该基座的对话模板不训练结束符，模型学不会停。请另选基座。",
        "The base's chat template does not train the end of an answer, so the model would not learn to stop. Choose "
        "another base.",
    ),
    "template_not_stable": (
        "该基座的对话模板会改写前面的对话，不能微调。请另选基座。",
        "The base's chat template rewrites earlier turns and cannot be trained. Choose another base.",
    ),
    "template_prompt_differs": (
        "该基座训练时与调用时的提示不同，不能微调。请另选基座。",
        "The base would be trained on other prompts than it is served with. Choose another base.",
    ),
    "data_invalid": (
        "数据未通过检查。请按数据集报告修正后重新上传。",
        "The data failed the check. Correct them by the data set's report and upload again.",
    ),
    "hyperparameter_out_of_range": (
        "配方中有超出范围的值。请用默认值或改小后新建任务。",
        "A recipe value is out of range. Start a new run with the defaults or a smaller value.",
    ),
    "too_few_examples": (
        "可用数据太少。请补充数据（建议 200 条以上）后重新上传。",
        "There are too few usable rows. Add rows (200 or more are recommended) and upload again.",
    ),
    "no_trainable_tokens": (
        "没有可学习的答案（可能超过最大长度）。请缩短数据行或调大最大长度。",
        "No answer is left to learn from, perhaps beyond the longest row allowed. Shorten the rows or raise the limit.",
    ),
    "tool_role_not_rendered": (
        "该基座的对话模板不支持 tool 消息。请另选基座，或在数据报告的“tool_role”处一键去除这些行。",
        "The chat template of this base does not show messages of role tool. Choose another base, or leave such rows "
        "out with one click at 'tool_role' of the data report.",
    ),
    "template_missing": (
        "该基座没有对话模板，不能微调。请另选基座。",
        "This base has no chat template and cannot be tuned. Choose another base.",
    ),
    "hyperparameter_unknown": (
        "配方中有未知的值。请用默认值新建任务。",
        "The recipe has an unknown value. Start a new run with the defaults.",
    ),
    "out_of_memory": (
        "设备内存不足。请选内存更大的报价，或减小每步词元数后重试。",
        "The device ran out of memory. Choose an offer with more memory, or fewer tokens per step.",
    ),
    "nan_loss": (
        "训练发散，损失不是数。平台会从上一个检查点以一半学习率重试一次；再次发生则停止并退款，请调低学习率。",
        "The training diverged: the loss was no number. It is tried once more from its last checkpoint at half the "
        "learning rate; a second time ends it with a refund. Lower the learning rate.",
    ),
    "limit_exceeded": (
        "运行时间远超报价，已停止。请重新报价或联系运营方。",
        "It ran far longer than quoted and was stopped. Ask for a new quote, or the operator.",
    ),
    "gate_regression": (
        "新模型没有通过发布门禁，暂不发布；不符的条目见下。请补充数据、调整配方，或写明理由后放行。",
        "The new model did not pass the publish gate and is held back; the rules below say why. Add data, change the "
        "recipe, or publish it with a reason.",
    ),
    "gate_not_measured": (
        "未能在服务引擎上测评，新模型暂缓发布。请重新测评，或写明理由后放行。",
        "It could not be measured on a serving engine, so the new model is held back. Measure it again, or publish it "
        "with a reason.",
    ),
    "adapter_not_applied": (
        "引擎没有应用训练所得，新模型已隔离。请重新训练，或联系运营方。",
        "The engine does not apply what was trained, so the model is quarantined. Run it again, or ask the operator.",
    ),
    "adapter_no_effect": (
        "训练没有改变基座的回答，新模型已隔离。请补充数据或提高学习率。",
        "Training left the base's answers as they were, so the model is quarantined. Add data or raise the rate.",
    ),
    "adapter_differs": (
        "引擎运行的不是训练所得，新模型已隔离。请重新训练，或联系运营方。",
        "The engine runs something else than was trained, so the model is quarantined. Ask the operator.",
    ),
    "base_differs": (
        "引擎上的基座与训练时不同，新模型已隔离。请联系运营方。",
        "The engine runs another base than was trained on, so the model is quarantined. Ask the operator.",
    ),
    "user_cancelled": ("您已取消；只收取已计量部分。", "You cancelled it; only the metered part is billed."),
    "quote_expired": ("报价已过期，没有扣款。请重新发起。", "The quote ran out; nothing was charged. Start again."),
    "lost": (
        "训练进程中断且未能恢复。无需付费，请重新发起任务。",
        "The trainer was lost and could not be brought back. You pay nothing; start a new run.",
    ),
    "stalled": (
        "训练进程长时间没有任何进展，平台已多次结束并从检查点继续，仍未恢复。无需付费，请重新发起任务或换一个报价。",
        "The trainer stood still; it was ended and resumed from its checkpoint several times without success. You pay "
        "nothing; start a new run, or choose another offer.",
    ),
    "max_duration": (
        "训练远超报价所允许的时间，平台已多次结束并从检查点继续，仍未完成。无需付费，请重新发起任务或换一个报价。",
        "The trainer ran far longer than its quote allows; it was ended and resumed several times without success. You "
        "pay nothing; start a new run, or choose another offer.",
    ),
    "took_too_long": (
        "处理时间远超平台上限，已结束，不收费。请重试；再次出现请联系运营方。",
        "The work took far longer than the platform allows and was ended; it costs nothing. Try again, and ask the "
        "operator if it happens again.",
    ),
    "ordering_failed": (
        "平台多次尝试后仍无法下单，没有冻结资金。请重新创建任务，或联系运营方。",
        "The platform could not place the order after several tries; no money was held. Create the job again, or ask "
        "the operator.",
    ),
    "internal": (
        "平台内部错误。无需付费，请重新发起任务；再次出现请联系运营方并提供任务编号。",
        "An internal error of the platform. You pay nothing; start a new run, and give the operator the run's id if "
        "it happens again.",
    ),
    "storage_failed": (
        "平台存储出错。无需付费，请稍后重新发起任务。",
        "The platform's storage failed. You pay nothing; start a new run later.",
    ),
    "base_changed": (
        "基座文件与登记的指纹不符，平台已停止任务。无需付费，请联系运营方。",
        "The base's files differ from their registered digest, so the platform stopped. You pay nothing; ask the "
        "operator.",
    ),
    "data_changed": (
        "平台保存的数据文件与登记的指纹不符。无需付费，请重新上传数据集，并告知运营方。",
        "The data's files, as the platform keeps them, differ from their registered digest. You pay nothing; upload "
        "the data set again, and tell the operator.",
    ),
    "row_not_chat": (
        "平台保存的数据文件不可读。无需付费，请重新上传数据集，并告知运营方。",
        "The data's files, as the platform keeps them, cannot be read. You pay nothing; upload the data set again, and "
        "tell the operator.",
    ),
    "data_not_ready": (
        "数据集尚不可用（检查失败、已删除或提示未确认）。请打开数据集处理后重新发起任务。",
        "The data set cannot be used: its check failed, it was deleted, or its warnings are not acknowledged. Open it, "
        "then start again.",
    ),
    "limit_too_small": (
        "限额内一步也训练不了。请调高限额后重新发起任务。",
        "The limits leave no step to train. Raise them and start again.",
    ),
    "rslora_sets_alpha": (
        "rsLoRA 自行设定 alpha，不能再指定。请去掉其中一项后重新发起任务。",
        "rsLoRA sets alpha by itself. Leave one of the two out and start again.",
    ),
    "qlora_needs_gpu": (
        "QLoRA 需要 GPU。请关闭它，或选择 GPU 算力后重新发起任务。",
        "QLoRA needs a GPU. Switch it off, or choose a GPU offer, and start again.",
    ),
    "qlora_not_trained": (
        "平台按服务时的 bf16 精度训练，尚不支持 4 位（QLoRA）。请关闭它后重新发起任务。",
        "Bases are trained in bf16 as they are served, and not yet in 4 bits (QLoRA). Switch it off and start again.",
    ),
    "base_unreadable": (
        "平台保存的基座文件不可读。无需付费，请联系运营方重新导入该基座。",
        "The base's files, as the platform keeps them, cannot be read. You pay nothing; ask the operator to import the "
        "base again.",
    ),
    "artifact_corrupt": (
        "训练产物与其登记的指纹不符，未能登记版本。无需付费，请重新发起任务。",
        "What was trained differs from its registered digest, so no version was made of it. You pay nothing; start a "
        "new run.",
    ),
    "adapter_not_loaded": (
        "引擎没有加载新模型，已隔离。请重新训练，或联系运营方。",
        "The engine did not load the model, so it is quarantined. Run it again, or ask the operator.",
    ),
    "no_capacity": (
        "暂时没有空闲的设备，会自动继续等待，不收费。",
        "No device is free now. It waits by itself and costs nothing.",
    ),
    "user_paused": (
        "您已暂停；资金保持冻结，7 天内不继续则取消并退回其余。",
        "You paused it. The money stays held; after 7 days it is cancelled and the rest goes back.",
    ),
    "insufficient_funds": (
        "可用资金不足，没有冻结资金。请转账并由运营方入账后重新创建任务。",
        "Your cash does not cover the quote; no money was held. Transfer it, let the operator book it, and create the "
        "job again.",
    ),
    "quote_above_limit": (
        "没有报价在您给定的上限之内，没有冻结资金。请提高上限后重新创建任务。",
        "No quote was within the limit that you gave; no money was held. Raise it and create the job again.",
    ),
}
"""Cause and next step by reason code of a run."""


def word_of(family: str, value: object) -> str:
    """Return a value in the request's language. Raises: UnknownWordError."""
    word = _find(family, value)
    return word.zh if request_language() == "zh" else word.en


def word_tone(family: str, value: object) -> str:
    """Return the tone of a value's badge. Raises: UnknownWordError."""
    return _find(family, value).tone


def explain_reason(code: str | None) -> str:
    """Return cause and next step of a run's reason code; empty for one that needs no explaining."""
    zh, en = REASONS.get(code or "", ("", ""))
    return zh if request_language() == "zh" else en


def _find(family: str, value: object) -> Word:
    try:
        return FAMILIES[family][str(value)]
    except KeyError:
        raise UnknownWordError(f"no word for {family} '{value}'; add it to marketplace_ui/journey_words.py") from None
