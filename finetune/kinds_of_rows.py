"""What can be wrong with what rows say, alone or together: code, severity, texts, remedy.

Leaves files and the shape of rows to `finetune.kinds_of_files`.
"""

from collections.abc import Mapping

from finetune.kinds_of_files import DROP, E, F, I, Kind, Remedy, W
from finetune.spec import FixAction

_MASK = (FixAction.MASK, FixAction.DROP)
_NORMALISE = (FixAction.NORMALISE, FixAction.DROP)


def _row_error(zh: str, en: str) -> Kind:
    """An error that only a person can mend in the row; leaving the row out is the one click."""
    return Kind(E, zh, en, Remedy.CORRECT_ROW, DROP)


def _private(zh: str, en: str) -> Kind:
    return Kind(
        W, f"第 {{rows}} 行含{zh}，建议脱敏。", f"Rows {{rows}} contain {en}. Mask before training.", Remedy.MASK, _MASK
    )


KINDS_OF_ROWS: Mapping[str, Kind] = {
    "missing_messages_list": _row_error(
        "第 {rows} 行缺少 messages 列表。", "Lines {rows}: 'messages' must be a list with at least one message."
    ),
    "message_not_object": _row_error("第 {rows} 行的消息不是对象。", "Lines {rows}: each message must be an object."),
    "message_missing_key": _row_error(
        "第 {rows} 行的消息缺少“{column}”或不是文字。", "Lines {rows}: a message lacks '{column}' or it is not text."
    ),
    "message_unrecognized_key": Kind(
        W,
        "第 {rows} 行的消息含未知字段“{column}”，将忽略。",
        "Lines {rows}: message field '{column}' is unknown and ignored.",
        Remedy.REVIEW,
    ),
    "weight_invalid": _row_error(
        "第 {rows} 行的“{column}”只能是 0（不学习该回答）或 1（学习），请改正或删除该字段。",
        "Lines {rows}: '{column}' must be 0 (do not learn this answer) or 1 (learn it); correct or remove the field.",
    ),
    "weight_ignored": Kind(
        W,
        "第 {rows} 行的“{column}”不属于 assistant 消息，将忽略：只学习 assistant 的回答。",
        "Lines {rows}: '{column}' is not of an assistant message and is ignored; only answers are learned.",
        Remedy.REVIEW,
    ),
    "example_missing_trained_message": _row_error(
        "第 {rows} 行的 assistant 消息的 weight 都是 0，无可学习的内容；请至少将一条改为 1。",
        "Lines {rows}: every assistant message has weight 0, so nothing is learned; give at least one weight 1.",
    ),
    "untrained_end": Kind(
        F,
        "第 {rows} 行在最后一条要学习的回答之后还有 weight 为 0 的回答，这部分已去除，不影响学习，也不计费。",
        "Lines {rows}: what follows the last trained answer (weight 0) is left out; it changes nothing that is learned "
        "and is not charged.",
        Remedy.NORMALISE,
    ),
    "unrecognized_role": _row_error(
        "第 {rows} 行的角色不允许，可用 system、user、assistant、tool。",
        "Lines {rows}: a role that is not allowed. Use system, user, assistant, tool.",
    ),
    "tool_role": Kind(
        W,
        "第 {rows} 行含 tool 消息：会被读入，但不学习。只有对话模板支持 tool 的基座可用；"
        "不支持的基座在预览和报价时会拒绝。",
        "Lines {rows} have messages of role tool: they are read and never learned. Only a base whose chat template "
        "shows them can use such rows; others refuse them at the token preview and when a run is planned.",
        Remedy.REVIEW,
        DROP,
    ),
    "tool_calls_without_text": _row_error(
        "第 {rows} 行的 assistant 消息只有 tool_calls 而没有文字；请将调用写入 content。",
        "Lines {rows}: an assistant message has tool_calls and no text to learn; write the call into its content.",
    ),
    "role_renamed": Kind(
        F,
        "{count} 处角色已改名（human→user，gpt→assistant）。",
        "{count} roles renamed (human to user, gpt to assistant).",
        Remedy.RENAME_ROLES,
    ),
    "role_order": _row_error(
        "第 {rows} 行的消息顺序不对：system 只能在首位，user 与 assistant 交替，tool 在两条 assistant 之间，"
        "最后是 assistant。",
        "Lines {rows}: system first, then user and assistant in turn, tool between two of assistant, assistant last.",
    ),
    "example_missing_assistant_message": _row_error(
        "第 {rows} 行没有 assistant 消息，无可学习的内容。", "Lines {rows}: no assistant message, so nothing to learn."
    ),
    "split_unrecognized": _row_error(
        "第 {rows} 行的划分标记无法识别，请用 train 或 valid。",
        "Rows {rows}: the split mark is not known. Use train or valid.",
    ),
    "split_leaves_no_train": Kind(
        E,
        "所有 {marked} 行都标为验证，没有可训练的数据。",
        "All {marked} rows are marked valid; nothing is left to train. Mark some rows train.",
        Remedy.UPLOAD_AGAIN,
    ),
    "empty_answer": Kind(
        F,
        "第 {rows} 行有 {count} 处答案为空，所在行已去除。",
        "Rows {rows}: {count} empty answers; their rows are left out.",
        Remedy.REMOVE_ROWS,
    ),
    "empty_prompt": Kind(
        F,
        "第 {rows} 行有 {count} 处问题为空，所在行已去除。",
        "Rows {rows}: {count} empty questions; their rows are left out.",
        Remedy.REMOVE_ROWS,
    ),
    "outer_blanks": Kind(
        F,
        "{count} 处文字首尾有空白，已去除。",
        "{count} texts had blanks around them, which were removed.",
        Remedy.NORMALISE,
    ),
    "placeholder_answer": Kind(
        W,
        "第 {rows} 行的答案只是占位（如“同上”“待补充”“N/A”），模型会照学。",
        "Rows {rows}: the answer is only a placeholder ('ditto', 'N/A'); the model would learn to say it.",
        Remedy.CORRECT_ROW,
        DROP,
    ),
    "answer_repeats_prompt": Kind(
        W,
        "第 {rows} 行的答案与问题相同。",
        "Rows {rows}: the answer is the question itself.",
        Remedy.CORRECT_ROW,
        DROP,
    ),
    "too_few_examples": Kind(
        E,
        "只有 {usable} 条可用数据，至少需要 {least} 条，建议 200 条以上。",
        "Only {usable} usable examples; at least {least} are required, 200 or more recommended.",
        Remedy.ADD_ROWS,
    ),
    "few_examples": Kind(
        W,
        "只有 {usable} 条可用数据，建议 200 条以上。",
        "Only {usable} usable examples; 200 or more are recommended.",
        Remedy.ADD_ROWS,
    ),
    "all_prompts_identical": Kind(
        E,
        "所有问题都相同，模型学不到东西。",
        "All questions are identical; the model can learn nothing from them.",
        Remedy.UPLOAD_AGAIN,
    ),
    "all_answers_identical": Kind(
        E,
        "所有答案都相同，模型只会重复它。",
        "All answers are identical; the model would only repeat it.",
        Remedy.UPLOAD_AGAIN,
    ),
    "label_imbalance": Kind(
        W,
        "{percent}% 的答案与第 {rows} 行相同，模型会偏向它。",
        "{percent}% of the answers are the one of row {rows}; expect a bias to it.",
        Remedy.ADD_ROWS,
    ),
    "valid_prompts_identical": Kind(
        W,
        "验证文件的所有问题都相同，得分只说明模型如何回答这一个问题。不影响训练；建议补充其他问题。",
        "All questions of the validation file are identical, so its score is about this one question. Training is not "
        "affected; add rows that ask something else.",
        Remedy.ADD_ROWS,
    ),
    "valid_answers_identical": Kind(
        W,
        "验证文件的所有答案都相同，得分只说明模型是否给出这一个答案。不影响训练；建议补充其他答案的行。",
        "All answers of the validation file are identical, so its score only says whether the model gives this one. "
        "Training is not affected; add rows with other answers.",
        Remedy.ADD_ROWS,
    ),
    "valid_label_imbalance": Kind(
        W,
        "验证文件中 {percent}% 的答案与第 {rows} 行相同，得分主要反映这一个答案。不影响训练。",
        "{percent}% of the answers of the validation file are the one of row {rows}; its score is mostly about that "
        "answer. Training is not affected.",
        Remedy.ADD_ROWS,
    ),
    "valid_row_not_scored": Kind(
        W,
        "验证文件第 {rows} 行的 assistant 消息的 weight 都是 0，没有可评分的回答，这些行不参与评分。",
        "Lines {rows} of the validation file have weight 0 on every assistant message; no answer of theirs is scored, "
        "so they are left out.",
        Remedy.REVIEW,
    ),
    "no_valid_rows": Kind(
        E,
        "验证文件没有一行可用，无法评分。请按检查结果修正后重新上传，或不指定验证文件，由系统留出一部分训练行。",
        "No row of the validation file can be used, so nothing can be scored. Correct it and upload it again, or name "
        "none: then some training rows are held out.",
        Remedy.UPLOAD_AGAIN,
    ),
    "duplicate_rows": Kind(
        F,
        "{count} 行重复（如第 {rows} 行），已去除。",
        "{count} duplicate rows (such as {rows}) left out.",
        Remedy.REMOVE_ROWS,
    ),
    "near_duplicate_rows": Kind(
        W,
        "{count} 行与前面的行几乎相同（如第 {rows} 行），数字也一样。",
        "{count} rows nearly repeat an earlier row with the same numbers ({rows}).",
        Remedy.REVIEW,
        DROP,
    ),
    "near_duplicates_cut": Kind(
        W,
        "近似重复的查找在比较 {compared} 对行后停止（上限 {limit} 对）；还有 {left} 行疑似重复未比较完，"
        "可能与其他行几乎相同。请删除已指出的重复行或拆分文件，再重新上传。",
        "The search for near duplicates stopped after {compared} pairs of rows (the limit is {limit}); {left} more "
        "rows may nearly repeat others. Remove the repeats that were found or split the file, then upload again.",
        Remedy.UPLOAD_AGAIN,
    ),
    "contradictory_answers": Kind(
        W,
        "{count} 行的问题与前面相同但答案不同（如第 {rows} 行）。",
        "{count} rows answer an earlier question differently ({rows}).",
        Remedy.REVIEW,
        DROP,
    ),
    "train_valid_overlap": Kind(
        F,
        "训练数据中有 {count} 行的问题也在验证数据中（如第 {rows} 行），已从训练中去除。",
        "{count} training rows ask what validation asks ({rows}); left out of training.",
        Remedy.REMOVE_ROWS,
    ),
    "train_valid_near_overlap": Kind(
        W,
        "训练数据中有 {count} 行与验证文件的行几乎相同（如第 {rows} 行；首个对应验证文件第 {valid_row} 行），"
        "数字也一样，评测会偏高。请从一侧删除。",
        "{count} training rows nearly repeat a row of the validation file with the same numbers ({rows}; the first "
        "repeats its row {valid_row}); scores may flatter. Remove them from one side.",
        Remedy.REVIEW,
        DROP,
    ),
    "near_overlap_cut": Kind(
        W,
        "训练与验证文件之间的近似重复查找在比较 {compared} 对行后停止（上限 {limit} 对）；还有 {left} 行训练数据"
        "疑似重复未比较完，评测可能偏高。请删除已指出的重复行或缩小验证文件，再重新上传。",
        "The search for training rows that nearly repeat the validation file stopped after {compared} pairs (the limit "
        "is {limit}); {left} more rows may do so and scores may flatter. Remove the repeats that were found or use a "
        "smaller validation file, then upload again.",
        Remedy.UPLOAD_AGAIN,
    ),
    "group_in_both": Kind(
        W,
        "您标记的验证行与训练行有同组的（如第 {rows} 行），评测会偏高。",
        "{count} training rows share a group with rows that you marked for validation ({rows}); scores may flatter.",
        Remedy.REVIEW,
        DROP,
    ),
    "group_too_large": Kind(
        W,
        "分组过大，无法按组划分验证集，改按问题划分。",
        "The groups are too large to hold one out; split by question instead.",
        Remedy.MAP_COLUMNS,
    ),
    "id_like_numbers_changed": Kind(
        W,
        "第 {rows} 行“{column}”列的编号或日期疑似被表格软件改写（丢失前导零，或日期变为天数），"
        "该列其他值形如 {example}。"
        "请将该列设为文本后重新导出并上传。",
        "Rows {rows}, column '{column}': a spreadsheet seems to have changed these numbers (leading zeros lost, or a "
        "date turned into a count of days); the others look like {example}. Set the column to text, export and upload "
        "again.",
        Remedy.UPLOAD_AGAIN,
    ),
    "language_mix": Kind(
        I,
        "问题与答案的文字：中文 {zh}%，拉丁字母（英文等）{en}%，其他 {other}%。",
        "Questions and answers by writing: Chinese {zh}%, Latin letters (English and others) {en}%, other {other}%.",
    ),
    "garbled_text": Kind(
        W,
        "第 {rows} 行“{column}”含无法识别的字符。",
        "Rows {rows}, '{column}': unreadable characters. Check the encoding of the source.",
        Remedy.CORRECT_ROW,
        DROP,
    ),
    "invisible_characters": Kind(
        W,
        "第 {rows} 行“{column}”含不可见字符（零宽或方向控制）。",
        "Rows {rows}, '{column}': invisible characters (zero width or direction marks).",
        Remedy.NORMALISE,
        _NORMALISE,
    ),
    "full_width_characters": Kind(
        I,
        "第 {rows} 行“{column}”含全角字母或数字，可一键转为半角。",
        "Rows {rows}, '{column}': full-width letters or digits; one click makes them half-width.",
        Remedy.NORMALISE,
        _NORMALISE,
    ),
    "markup_left": Kind(
        W,
        "第 {rows} 行“{column}”残留网页标记（如 <br>、&nbsp;）。",
        "Rows {rows}, '{column}': markup of a web page is left in the text (<br>, &nbsp;).",
        Remedy.NORMALISE,
        _NORMALISE,
    ),
    "formula_text": Kind(
        W,
        "第 {rows} 行“{column}”像是公式，用表格软件打开会被执行。",
        "Rows {rows}, '{column}': text that a spreadsheet would run as a formula.",
        Remedy.CORRECT_ROW,
        DROP,
    ),
    "very_long_text": Kind(
        W,
        "第 {rows} 行超过 {limit} 个字符，多数基座放不下，会在报价时被去除。",
        "Rows {rows} have more than {limit} characters; most bases cannot hold them and a plan leaves them out.",
        Remedy.CORRECT_ROW,
        DROP,
    ),
    "pii_phone": _private("手机号", "phone numbers"),
    "pii_identity_number": _private("身份证号", "identity numbers"),
    "pii_bank_card": _private("银行卡号", "bank card numbers"),
    "pii_email": _private("邮箱地址", "e-mail addresses"),
    "pii_number_plate": _private("车牌号", "number plates"),
    "secret_found": Kind(
        W,
        "第 {rows} 行疑似含密码或密钥，请删除。",
        "Rows {rows} seem to contain passwords or keys. Remove them.",
        Remedy.MASK,
        _MASK,
    ),
}
