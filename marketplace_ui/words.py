"""The words of the hub's states, kinds and roles in both languages, and the tone in which a badge shows them.

It leaves sentences to the templates. A value without a word is an error, found by a test that reads the enumerations.
"""

from typing import NamedTuple

from hub.web import request_language


class Word(NamedTuple):
    """One value in both languages; `tone` is the badge's: good, wait, bad, info, quiet."""

    zh: str
    en: str
    tone: str = "quiet"


class UnknownWordError(LookupError):
    """A value that nobody translated: a defect of the pages."""


WORDS: dict[str, dict[str, Word]] = {
    "role": {
        "factory": Word("工厂", "Factory"),
        "integrator": Word("集成商", "Integrator"),
        "developer": Word("开发者", "Developer"),
        "provider": Word("算力供应商", "Compute provider"),
        "operator": Word("运营方", "Operator"),
        "auditor": Word("审计员", "Auditor"),
        "authority": Word("主管部门", "Authority"),
    },
    "organisation": {
        "pending": Word("待核验", "To be verified", "wait"),
        "verified": Word("已核验", "Verified", "good"),
        "suspended": Word("已停用", "Suspended", "bad"),
    },
    "standing": {
        "valid": Word("已备案", "Filed", "good"),
        "never": Word("未备案", "Not filed", "wait"),
        "withdrawn": Word("备案已撤销", "Filing withdrawn", "bad"),
        "expired": Word("备案已到期", "Filing expired", "bad"),
    },
    "track": {"备案": Word("备案", "Filing"), "登记": Word("登记", "Registration")},
    "ruling": {
        "filed": Word("单独备案", "Filed on its own", "good"),
        "registered": Word("登记", "Registered", "good"),
        "not_applicable": Word("无需单独备案", "No filing of its own needed"),
    },
    "kind": {
        "base": Word("基础模型", "Base model", "info"),
        "vertical": Word("垂直大模型", "Vertical large model", "info"),
        "adapter": Word("适配器", "Adapter", "adapt"),
        "full": Word("全量微调模型", "Fully tuned model", "adapt"),
        "small": Word("小模型", "Small model"),
        "app": Word("工业应用", "Industrial app"),
        "agent": Word("智能体", "Agent"),
        "dataset": Word("数据集", "Data set"),
        "knowledge_base": Word("知识库", "Knowledge base"),
    },
    "version": {
        "draft": Word("草稿", "Draft"),
        "in_review": Word("审核中", "In review", "wait"),
        "listed": Word("已上架", "Listed", "good"),
        "private": Word("私有", "Private", "info"),
        "quarantined": Word("已隔离", "Quarantined", "bad"),
        "retired": Word("已退役", "Retired"),
    },
    "visibility": {
        "private": Word("仅本机构", "Own organisation only"),
        "acl": Word("指定机构", "Named organisations"),
        "public": Word("公开", "Public", "good"),
    },
    "upload": {
        "open": Word("检查中", "Being checked", "wait"),
        "accepted": Word("通过", "Passed", "good"),
        "refused": Word("被拒绝", "Refused", "bad"),
    },
    "deployment": {
        "wanted": Word("启动中", "Starting", "wait"),
        "ready": Word("运行中", "Ready", "good"),
        "failed": Word("启动失败，重试中", "Failed, being retried", "bad"),
        "stopped": Word("已停止", "Stopped"),
    },
    "rollout": {
        "waiting": Word("等待就绪", "Waits for its version", "wait"),
        "running": Word("灰度中", "Under way", "info"),
        "promoted": Word("已转正", "Promoted", "good"),
        "taken_back": Word("已回退", "Taken back", "bad"),
    },
    "rollout_end": {
        "by_owner": Word("由人员回退", "by a person"),
        "too_many_errors": Word("自动：错误过多", "by itself: too many errors", "bad"),
        "answers_worse": Word("自动：回答变差", "by itself: answers got worse", "bad"),
        "undeployed": Word("版本已下线", "a version was undeployed"),
    },
    "key": {
        "live": Word("有效", "Live", "good"),
        "expired": Word("已过期", "Expired"),
        "revoked": Word("已停用", "Revoked", "bad"),
    },
    "meter": {
        "device_ms": Word("算力租用", "Compute rental"),
        "trained_tokens": Word("调优服务（训练词元）", "Tuning service (trained tokens)"),
        "prompt": Word("输入词元", "Prompt tokens"),
        "cached": Word("缓存命中的输入词元", "Cached prompt tokens"),
        "completion": Word("输出词元", "Completion tokens"),
    },
    "party": {
        "seller": Word("卖方", "Seller"),
        "integrator": Word("集成商", "Integrator"),
        "base_owner": Word("基座模型方", "Owner of the base"),
        "provider": Word("算力供应商", "Compute provider"),
        "pool": Word("推理资源池", "Inference pool"),
        "platform": Word("平台", "Platform"),
    },
    "rental": {
        "active": Word("进行中", "Running", "good"),
        "released": Word("已结束", "Over"),
    },
    "meter_state": {
        "accepted": Word("已计入", "Counted", "good"),
        "quarantined": Word("已隔离", "Set apart", "bad"),
        "rejected": Word("已驳回", "Rejected"),
    },
    "raw_figure": {
        "seq": Word("序号", "Number"),
        "device_ms": Word("累计设备毫秒", "Device ms in all"),
        "elapsed_device_ms": Word("实际设备毫秒", "Device ms that passed"),
        "counted_ms": Word("计入毫秒", "Ms that count"),
        "trained_tokens": Word("训练词元", "Trained tokens"),
        "prompt": Word("输入词元", "Input tokens"),
        "cached": Word("缓存词元", "Cached tokens"),
        "completion": Word("输出词元", "Output tokens"),
    },
    "raw_state": {
        "accepted": Word("已计入", "Counted", "good"),
        "quarantined": Word("已隔离", "Set apart", "bad"),
        "rejected": Word("已驳回", "Rejected"),
        "active": Word("进行中", "Running", "info"),
        "released": Word("已结束", "Over"),
        "held": Word("已冻结资金", "Money held", "wait"),
        "settled": Word("已结算", "Settled", "good"),
        "refunded": Word("已退款", "Refunded", "info"),
        "complete": Word("完整回答", "Whole answer", "good"),
        "partial": Word("部分回答", "Part of the answer", "wait"),
        "failed": Word("没有回答", "No answer", "bad"),
        "corrected": Word("已更正", "Corrected", "info"),
        "late": Word("迟到", "Came late", "wait"),
    },
    "correction": {
        "proposed": Word("待批准", "Waits for approval", "wait"),
        "posted": Word("已入账", "Posted", "good"),
        "refused": Word("已驳回", "Refused"),
    },
    "payout": {
        "requested": Word("已申请", "Asked for", "wait"),
        "in_payout": Word("付款中", "On its way", "info"),
        "paid": Word("已付", "Paid", "good"),
        "failed": Word("失败，款项退回", "Failed, money back", "bad"),
        "unknown": Word("结果不明，核实中", "Unknown, being looked into", "bad"),
        "netted": Word("已全额抵扣欠款", "All netted against what was owed", "good"),
        "withdrawn": Word("已撤回", "Taken back"),
    },
    "offer_state": {
        "open": Word("出租中", "Open", "good"),
        "paused": Word("已暂停", "Paused", "wait"),
        "withdrawn": Word("已下架", "Withdrawn"),
    },
    "offer_sort": {
        "price": Word("价格从低到高", "Cheapest first"),
        "memory": Word("显存从大到小", "Most memory first"),
        "speed": Word("速度从快到慢", "Fastest first"),
        "free": Word("空闲从多到少", "Most free first"),
        "reliability": Word("履约从好到差", "Most reliable first"),
    },
    "locality": {
        "in_plant": Word("数据不出厂", "Data stay in the plant"),
        "in_city": Word("数据不出市", "Data stay in the city"),
        "anywhere": Word("数据可出市", "Data may leave the city"),
    },
    "run": {
        "validating": Word("检查数据", "Checking data", "wait"),
        "planned": Word("待报价", "Ready for a quote", "info"),
        "quoted": Word("已报价", "Quoted", "info"),
        "queued": Word("排队中", "Queued", "wait"),
        "provisioning": Word("分配算力", "Getting a device", "wait"),
        "waiting_capacity": Word("等待算力", "Waiting for a device", "wait"),
        "preparing": Word("准备中", "Preparing", "wait"),
        "running": Word("训练中", "Training", "info"),
        "evaluating": Word("评测中", "Evaluating", "info"),
        "gating": Word("核对结果", "Judging the result", "info"),
        "publishing": Word("登记版本", "Registering the version", "info"),
        "paused": Word("已暂停", "Paused", "wait"),
        "recovering": Word("恢复中", "Recovering", "wait"),
        "cancelling": Word("取消中", "Being cancelled", "wait"),
        "succeeded": Word("已完成", "Succeeded", "good"),
        "early_stopped": Word("提前完成", "Stopped early, done", "good"),
        "held": Word("完成，未登记版本", "Done, version held back", "wait"),
        "released": Word("完成，后经放行发布", "Done, published later", "good"),
        "invalid": Word("数据有误", "Data refused", "bad"),
        "expired": Word("报价已过期", "Quote expired"),
        "cancelled": Word("已取消", "Cancelled"),
        "failed": Word("失败", "Failed", "bad"),
    },
    "application": {
        "submitted": Word("已提交", "Submitted", "wait"),
        "checked": Word("已初审", "Checked by one", "info"),
        "returned": Word("退回补充", "Returned for completion", "wait"),
        "approved": Word("已批准", "Approved", "good"),
        "refused": Word("未通过", "Refused", "bad"),
        "appealed": Word("申诉中", "Appealed", "wait"),
        "withdrawn": Word("已撤回", "Withdrawn"),
    },
    "grant": {
        "active": Word("有效", "Active", "good"),
        "lapsed": Word("已到期", "Lapsed"),
        "revoked": Word("已撤销", "Revoked", "bad"),
    },
    "rule": {
        "draft": Word("草案", "Draft", "wait"),
        "approved": Word("已批准", "Approved", "good"),
        "refused": Word("已驳回", "Refused", "bad"),
    },
    "claim": {
        "drafted": Word("草案", "Drafted", "wait"),
        "submitted": Word("已提交", "Submitted", "info"),
        "paid": Word("已到账", "Paid", "info"),
        "reconciled": Word("已对账", "Reconciled", "good"),
        "withdrawn": Word("已撤回", "Withdrawn"),
        "refused": Word("主管部门退回", "Refused by the authority", "bad"),
    },
    "redemption": {
        "requested": Word("已申请", "Requested", "wait"),
        "checked": Word("已初审", "Checked by one", "info"),
        "paid": Word("已兑付", "Paid", "good"),
        "refused": Word("未通过", "Refused", "bad"),
        "withdrawn": Word("已撤回", "Withdrawn"),
    },
    "owner": {
        "legal_person": Word("法定代表人", "Legal person"),
        "holder": Word("股东", "Holder"),
    },
    "verdict": {
        "cleared": Word("认定非关联", "Cleared", "good"),
        "related": Word("认定关联", "Related", "bad"),
    },
    "figure": {
        "applied": Word("申请数", "Applications"),
        "applied_fen": Word("申请金额", "Asked"),
        "refused": Word("未通过数", "Refusals"),
        "awarded_fen": Word("授予", "Awarded"),
        "returned_fen": Word("退回资金池", "Returned to the fund"),
        "used_fen": Word("已用", "Used"),
        "taken_back_fen": Word("更正退回", "Taken back"),
        "claimed_fen": Word("已申报", "Claimed"),
        "held_at_end_fen": Word("期末冻结", "Held at the end"),
        "left_at_end_fen": Word("期末剩余", "Left at the end"),
        "released_fen": Word("释放资金", "Released"),
        "paid_by_authority_fen": Word("主管部门拨付", "Paid by the authority"),
        "fund_left_at_end_fen": Word("期末资金池", "Fund at the end"),
        "owed_by_authority_at_end_fen": Word("期末应拨", "Owed by the authority at the end"),
    },
    "quote": {
        "open": Word("有效", "Open", "info"),
        "accepted": Word("已接受", "Accepted", "good"),
        "expired": Word("已过期", "Expired"),
    },
    "order": {
        "held": Word("已冻结资金", "Money held", "wait"),
        "settled": Word("已结算", "Settled", "good"),
        "refunded": Word("已退款", "Refunded", "info"),
    },
    "dataset": {
        "checking": Word("检查中", "Being checked", "wait"),
        "ready": Word("可用", "Ready", "good"),
        "warned": Word("有提示，待确认", "Warnings to acknowledge", "wait"),
        "blocked": Word("有错误", "Has errors", "bad"),
        "failed": Word("检查失败（平台原因）", "Check failed (our fault)", "bad"),
        "deleted": Word("已删除", "Deleted"),
    },
    "yes_no": {"yes": Word("是", "Yes", "good"), "no": Word("否", "No")},
}


def find_word(family: str, value: object) -> Word:
    """Return the word of a value (a StrEnum or text). Raises: UnknownWordError."""
    try:
        return WORDS[family][str(value)]
    except KeyError:
        raise UnknownWordError(f"no word for {family} '{value}'; add it to marketplace_ui/words.py") from None


def say(family: str, value: object) -> str:
    """Return a value in the request's language."""
    word = find_word(family, value)
    return word.zh if request_language() == "zh" else word.en


def tone_of(family: str, value: object) -> str:
    """Return the tone of a value's badge."""
    return find_word(family, value).tone
