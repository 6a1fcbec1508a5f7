"""Findings of a data check: codes, severities, bilingual messages, grouped by code and column.

Leaves finding them to the readers and rules. Row text stays out; a short cell value may appear in the report alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from finetune.codec import Json

_SAMPLE_ROWS = 20
_SHORT_CHARS = 24


class Severity(StrEnum):
    """E stops the run, W is to be acknowledged, F was corrected, I is for information."""

    ERROR = "E"
    WARNING = "W"
    FIXED = "F"
    INFORMATION = "I"


@dataclass(frozen=True)
class Kind:
    """Texts of one code; placeholders: count, rows, column and what the finder passes."""

    severity: Severity
    zh: str
    en: str
    fix: str | None = None


_E, _W, _F, _I = Severity.ERROR, Severity.WARNING, Severity.FIXED, Severity.INFORMATION

KINDS: Mapping[str, Kind] = {
    "file_empty": Kind(_E, "文件没有数据行，请上传有内容的文件。", "The file has no rows. Upload a file with content."),
    "file_too_large": Kind(
        _E, "文件为 {size} MB，上限 {limit} MB，请拆分。", "The file is {size} MB; the limit is {limit} MB. Split it."
    ),
    "file_unreadable": Kind(
        _E, "无法按 {format} 读取文件：{why}。", "The file cannot be read as {format}: {why}. Save it again and upload."
    ),
    "encoding_unknown": Kind(
        _E, "无法识别文件编码，请另存为 UTF-8。", "The text encoding is not recognised. Save the file as UTF-8."
    ),
    "encoding_not_utf8": Kind(
        _F, "文件编码为 {encoding}，已转换为 UTF-8。", "The file is {encoding}; it was converted to UTF-8.", "convert"
    ),
    "invalid_json": Kind(
        _E,
        "第 {rows} 行不是有效的 JSON（首处：{why}，第 {character} 个字符）。",
        "Lines {rows}: not valid JSON (first: {why}, character {character}).",
    ),
    "row_not_object": Kind(_E, "第 {rows} 行不是 JSON 对象。", "Lines {rows}: each line must be a JSON object."),
    "mixed_formats": Kind(
        _E,
        "第 {rows} 行与首行格式（{format}）不同，请统一格式。",
        "Lines {rows} differ from the first row, which is {format}. Use one format.",
    ),
    "csv_column_count": Kind(
        _E,
        "第 {rows} 行的列数与表头不同（表头 {wanted} 列）。",
        "Rows {rows}: the header has {wanted} columns, the row not.",
    ),
    "header_invalid": Kind(
        _E,
        "表头有空白或重复的列名（{column}）。",
        "The header has an empty or repeated column name ({column}). Name each once.",
    ),
    "xlsx_multiple_sheets": Kind(
        _W, "工作簿有 {sheets} 个工作表，只使用“{sheet}”。", "The workbook has {sheets} sheets; only '{sheet}' is used."
    ),
    "xlsx_formula_error": Kind(
        _E,
        "第 {rows} 行“{column}”列含公式错误（如 {value}）。",
        "Rows {rows}, column '{column}': formula error such as {value}.",
    ),
    "no_format_match": Kind(
        _E,
        "在列 {columns} 中找不到问题列和答案列，请指定列映射。",
        "No question and answer columns found in {columns}. Choose the input and the expected answer.",
        "map_columns",
    ),
    "mapping_column_missing": Kind(
        _E,
        "映射的列“{column}”不在文件中，文件有 {columns}。",
        "Mapped column '{column}' is not in the file, which has {columns}. Correct the mapping.",
        "map_columns",
    ),
    "columns_guessed": Kind(
        _I,
        "列用途为自动识别：{mapping}。如不对请指定。",
        "Columns were recognised: {mapping}. Set the mapping if wrong.",
    ),
    "columns_guessed_by_position": Kind(
        _W,
        "列名无法识别，按位置：{mapping}。请确认。",
        "Column names say nothing; by position: {mapping}. Please confirm.",
    ),
    "missing_messages_list": Kind(
        _E, "第 {rows} 行缺少 messages 列表。", "Lines {rows}: 'messages' must be a list with at least one message."
    ),
    "message_not_object": Kind(_E, "第 {rows} 行的消息不是对象。", "Lines {rows}: each message must be an object."),
    "message_missing_key": Kind(
        _E, "第 {rows} 行的消息缺少“{column}”。", "Lines {rows}: a message lacks '{column}' or it is not text."
    ),
    "message_unrecognized_key": Kind(
        _W,
        "第 {rows} 行的消息含未知字段“{column}”，将忽略。",
        "Lines {rows}: message field '{column}' is unknown and ignored.",
    ),
    "weight_unsupported": Kind(
        _E,
        "第 {rows} 行使用 weight，目前不支持，请删除该字段。",
        "Lines {rows}: 'weight' is not supported; remove the field.",
    ),
    "unrecognized_role": Kind(
        _E,
        "第 {rows} 行的角色“{value}”不允许，可用 system、user、assistant。",
        "Lines {rows}: role '{value}' is not allowed. Use system, user, assistant.",
    ),
    "role_renamed": Kind(
        _F,
        "{count} 行的角色已改名（human→user，gpt→assistant）。",
        "{count} rows: roles renamed (human to user, gpt to assistant).",
        "rename_roles",
    ),
    "role_order": Kind(
        _E,
        "第 {rows} 行的消息顺序不对：system 只能在首位，user 与 assistant 交替，最后是 assistant。",
        "Lines {rows}: system first, then user and assistant in turn, the last one assistant.",
    ),
    "example_missing_assistant_message": Kind(
        _E,
        "第 {rows} 行没有 assistant 消息，无可学习的内容。",
        "Lines {rows}: no assistant message, so nothing to learn.",
    ),
    "split_unrecognized": Kind(
        _E,
        "第 {rows} 行的划分标记“{value}”无法识别，请用 train 或 valid。",
        "Rows {rows}: split mark '{value}' is not known. Use train or valid.",
    ),
    "split_leaves_no_train": Kind(
        _E,
        "所有 {marked} 行都标为验证，没有可训练的数据。",
        "All {marked} rows are marked valid; nothing is left to train. Mark some rows train.",
    ),
    "empty_answer": Kind(
        _F,
        "第 {rows} 行答案为空，已去除 {count} 行。",
        "Rows {rows}: the answer is empty; {count} rows left out.",
        "remove_rows",
    ),
    "empty_prompt": Kind(
        _F,
        "第 {rows} 行问题为空，已去除 {count} 行。",
        "Rows {rows}: the question is empty; {count} rows left out.",
        "remove_rows",
    ),
    "too_few_examples": Kind(
        _E,
        "只有 {usable} 条可用数据，至少需要 {least} 条，建议 200 条以上。",
        "Only {usable} usable examples; at least {least} are required, 200 or more recommended.",
    ),
    "few_examples": Kind(
        _W, "只有 {usable} 条可用数据，建议 200 条以上。", "Only {usable} usable examples; 200 or more are recommended."
    ),
    "all_prompts_identical": Kind(
        _E, "所有问题都相同。", "All questions are identical; the model can learn nothing from them."
    ),
    "all_answers_identical": Kind(
        _E,
        "所有答案都相同（“{value}”），模型只会重复它。",
        "All answers are identical ('{value}'); the model would only repeat it.",
    ),
    "label_imbalance": Kind(
        _W,
        "{percent}% 的答案是“{value}”，模型会偏向它。",
        "{percent}% of the answers are '{value}'; expect a bias to it.",
    ),
    "duplicate_rows": Kind(
        _F,
        "{count} 行重复（如第 {rows} 行），已去除。",
        "{count} duplicate rows (such as {rows}) left out.",
        "remove_rows",
    ),
    "contradictory_answers": Kind(
        _W,
        "{count} 行的问题相同但答案不同（如第 {rows} 行）。",
        "{count} rows answer an earlier question differently ({rows}).",
    ),
    "train_valid_overlap": Kind(
        _F,
        "训练数据中有 {count} 行的问题也在验证数据中（如第 {rows} 行），已从训练中去除。",
        "{count} training rows ask what validation asks ({rows}); left out of training.",
        "remove_rows",
    ),
    "group_too_large": Kind(
        _W,
        "分组过大，无法按组划分验证集，改按问题划分。",
        "The groups are too large to hold one out; split by question instead.",
    ),
    "garbled_text": Kind(
        _W,
        "第 {rows} 行含无法识别的字符。",
        "Rows {rows} contain unreadable characters. Check the encoding of the source.",
    ),
    "pii_phone": Kind(
        _W, "第 {rows} 行含手机号，建议脱敏。", "Rows {rows} contain phone numbers. Mask them before training."
    ),
    "pii_identity_number": Kind(
        _W, "第 {rows} 行含身份证号，建议脱敏。", "Rows {rows} contain identity numbers. Mask them before training."
    ),
    "pii_email": Kind(
        _W, "第 {rows} 行含邮箱地址，建议脱敏。", "Rows {rows} contain e-mail addresses. Mask them before training."
    ),
    "secret_found": Kind(
        _W, "第 {rows} 行疑似含密码或密钥，请删除。", "Rows {rows} seem to contain passwords or keys. Remove them."
    ),
}


@dataclass
class _Group:
    count: int = 0
    rows: list[int] = field(default_factory=list)
    values: dict[str, object] = field(default_factory=dict)


class IssueLog:
    """Collects findings; `file` says which upload they are about (train or valid)."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._groups: dict[tuple[str, str | None], _Group] = {}

    def add(self, code: str, *, row: int | None = None, column: str | None = None, **values: object) -> None:
        """Count one finding; the values of the first one of a code and column go into the message."""
        group = self._groups.setdefault((code, column), _Group(values=values))
        group.count += 1
        if row is not None and len(group.rows) < _SAMPLE_ROWS and row not in group.rows:
            group.rows.append(row)

    def count(self, severity: Severity) -> int:
        """Number of codes found with this severity."""
        return sum(KINDS[code].severity is severity for code, _ in self._groups)

    def describe(self) -> list[Json]:
        """All findings for report.json, errors first."""
        order = list(Severity)
        found = sorted(self._groups.items(), key=lambda item: order.index(KINDS[item[0][0]].severity))
        return [self._describe(code, column, group) for (code, column), group in found]

    def _describe(self, code: str, column: str | None, group: _Group) -> Json:
        kind = KINDS[code]
        rows = ", ".join(str(row) for row in group.rows[:5]) + (" …" if group.count > 5 else "")
        texts = {name: _shorten(value) for name, value in group.values.items()}
        texts |= {"rows": rows, "count": str(group.count), "column": column or ""}
        return {
            "code": code,
            "severity": str(kind.severity),
            "file": self._file,
            "row": group.rows[0] if group.rows else None,
            "column": column,
            "count": group.count,
            "sample_rows": [*group.rows],
            "message_zh": kind.zh.format(**texts),
            "message_en": kind.en.format(**texts),
            "fix": {"action": kind.fix, "auto": kind.severity is Severity.FIXED} if kind.fix else None,
        }


def _shorten(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value[:20])
    text = str(value)
    return text if len(text) <= _SHORT_CHARS * 4 else text[: _SHORT_CHARS * 4] + "…"
