"""What can be wrong with an upload as a whole or with the shape of its rows: code, severity, texts, remedy.

Leaves what the rows say to `finetune.kinds_of_rows`. No text has a place for row text: the report holds none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from finetune.spec import FixAction


class Severity(StrEnum):
    """E stops the run, W is to be acknowledged, F was corrected, I is for information."""

    ERROR = "E"
    WARNING = "W"
    FIXED = "F"
    INFORMATION = "I"


class Remedy(StrEnum):
    """What to do about a finding; the pages have the words."""

    UPLOAD_AGAIN = "upload_again"
    CONVERT = "convert"
    MAP_COLUMNS = "map_columns"
    CORRECT_ROW = "correct_row"
    REMOVE_ROWS = "remove_rows"
    RENAME_ROLES = "rename_roles"
    MASK = "mask"
    NORMALISE = "normalise"
    FILL_CELLS = "fill_cells"
    ADD_ROWS = "add_rows"
    REVIEW = "review"


@dataclass(frozen=True)
class Kind:
    """Texts of one code; placeholders: count, rows, column and what the finder passes.

    `offers` are the corrections that a customer may ask for with one click; the first is the one that is advised.
    """

    severity: Severity
    zh: str
    en: str
    fix: Remedy | None = None
    offers: tuple[FixAction, ...] = ()


E, W, F, I = Severity.ERROR, Severity.WARNING, Severity.FIXED, Severity.INFORMATION  # noqa: E741  the report's letters
DROP = (FixAction.DROP,)

KINDS_OF_FILES: Mapping[str, Kind] = {
    "file_empty": Kind(
        E,
        "文件没有数据行，请上传有内容的文件。",
        "The file has no rows. Upload a file with content.",
        Remedy.UPLOAD_AGAIN,
    ),
    "file_too_large": Kind(
        E,
        "文件为 {size} MB，上限 {limit} MB，请拆分。",
        "The file is {size} MB; the limit is {limit} MB. Split it.",
        Remedy.UPLOAD_AGAIN,
    ),
    "too_many_rows": Kind(
        E,
        "文件超过 {limit} 行，请拆分为几个数据集。",
        "The file has more than {limit} rows. Split it into several data sets.",
        Remedy.UPLOAD_AGAIN,
    ),
    "file_unreadable": Kind(
        E,
        "无法按 {format} 读取文件：{why}。请另存后重新上传。",
        "The file cannot be read as {format}: {why}. Save it again and upload.",
        Remedy.UPLOAD_AGAIN,
    ),
    "archive_suspicious": Kind(
        E,
        "工作簿解压后 {size} MB，是文件的 {ratio} 倍，已拒绝。请另存为新工作簿后上传。",
        "The workbook unpacks to {size} MB, {ratio} times its size, and was refused. Save it as a new workbook.",
        Remedy.UPLOAD_AGAIN,
    ),
    "encoding_unknown": Kind(
        E,
        "无法识别文件编码，请另存为 UTF-8。",
        "The text encoding is not recognised. Save the file as UTF-8.",
        Remedy.UPLOAD_AGAIN,
    ),
    "encoding_not_utf8": Kind(
        F,
        "文件编码为 {encoding}，已转换为 UTF-8。",
        "The file is {encoding}; it was converted to UTF-8.",
        Remedy.CONVERT,
    ),
    "invalid_bytes": Kind(
        E,
        "第 {rows} 行含不符合 {encoding} 编码的字节（首处在该行第 {byte} 个字节）。",
        "Rows {rows}: bytes that are not {encoding} (first: byte {byte} of the line).",
        Remedy.CORRECT_ROW,
        DROP,
    ),
    "line_too_long": Kind(
        E,
        "第 {rows} 行超过 {limit} KB，请拆分该行。",
        "Lines {rows} are longer than {limit} KB. Split them.",
        Remedy.CORRECT_ROW,
        DROP,
    ),
    "invalid_json": Kind(
        E,
        "第 {rows} 行不是有效的 JSON（首处：{why}，第 {character} 个字符）。",
        "Lines {rows}: not valid JSON (first: {why}, character {character}).",
        Remedy.CORRECT_ROW,
        DROP,
    ),
    "row_not_object": Kind(
        E,
        "第 {rows} 行不是 JSON 对象。",
        "Lines {rows}: each line must be a JSON object.",
        Remedy.CORRECT_ROW,
        DROP,
    ),
    "duplicate_key": Kind(
        E,
        "第 {rows} 行重复出现字段“{column}”。",
        "Lines {rows}: field '{column}' stands there twice. Keep one.",
        Remedy.CORRECT_ROW,
        DROP,
    ),
    "mixed_formats": Kind(
        E,
        "第 {rows} 行与首行格式（{format}）不同，请统一格式。",
        "Lines {rows} differ from the first row, which is {format}. Use one format.",
        Remedy.CORRECT_ROW,
        DROP,
    ),
    "cell_not_text": Kind(
        E,
        "第 {rows} 行“{column}”是列表或对象，应为文字。",
        "Rows {rows}: '{column}' is a list or an object; it must be text.",
        Remedy.CORRECT_ROW,
        DROP,
    ),
    "csv_column_count": Kind(
        E,
        "第 {rows} 行的列数与表头不同（表头 {wanted} 列）。",
        "Rows {rows}: the header has {wanted} columns, the row not.",
        Remedy.CORRECT_ROW,
        DROP,
    ),
    "csv_quotes": Kind(
        E,
        "第 {rows} 行的双引号没有配对。单元格内的双引号须写两次。",
        "Rows {rows}: a double quote is not closed or not doubled. Write a quote inside a cell twice.",
        Remedy.CORRECT_ROW,
        DROP,
    ),
    "header_invalid": Kind(
        E,
        "表头有空白或重复的列名（{column}）。",
        "The header has an empty or repeated column name ({column}). Name each once.",
        Remedy.UPLOAD_AGAIN,
    ),
    "title_rows_skipped": Kind(
        F,
        "表头在第 {header} 行，其上的标题行不作为数据。",
        "The header is row {header}; the title above it is not read as rows.",
    ),
    "xlsx_multiple_sheets": Kind(
        W,
        "工作簿有 {sheets} 个工作表，只使用“{sheet}”。",
        "The workbook has {sheets} sheets; only '{sheet}' is used.",
        Remedy.REVIEW,
    ),
    "xlsx_merged_cells": Kind(
        F,
        "第 {rows} 行“{column}”列为合并单元格，已填入其值。",
        "Rows {rows}, column '{column}': merged cells were filled with their value.",
        Remedy.FILL_CELLS,
    ),
    "xlsx_merged_across": Kind(
        E,
        "第 {rows} 行“{column}”列与右侧列合并，无法判断属于哪一列。请取消合并。",
        "Rows {rows}: '{column}' is merged with the columns to its right, so its column is unclear. Unmerge it.",
        Remedy.CORRECT_ROW,
        DROP,
    ),
    "xlsx_formula_error": Kind(
        E,
        "第 {rows} 行“{column}”列含公式错误。",
        "Rows {rows}, column '{column}': formula error such as #N/A.",
        Remedy.CORRECT_ROW,
        DROP,
    ),
    "number_mangled": Kind(
        W,
        "第 {rows} 行“{column}”列的编号被表格软件改写（科学计数或超过 15 位），末位已丢失。",
        "Rows {rows}, column '{column}': a spreadsheet rewrote a long number and lost its last digits.",
        Remedy.CORRECT_ROW,
        DROP,
    ),
    "no_format_match": Kind(
        E,
        "在列 {columns} 中找不到问题列和答案列，请指定列映射。",
        "No question and answer columns found in {columns}. Choose the input and the expected answer.",
        Remedy.MAP_COLUMNS,
    ),
    "mapping_column_missing": Kind(
        E,
        "映射的列“{column}”不在文件中，文件有 {columns}。",
        "Mapped column '{column}' is not in the file, which has {columns}. Correct the mapping.",
        Remedy.MAP_COLUMNS,
    ),
    "columns_guessed": Kind(
        I,
        "列用途为自动识别：{mapping}。如不对请指定。",
        "Columns were recognised: {mapping}. Set the mapping if wrong.",
    ),
    "columns_guessed_by_position": Kind(
        W,
        "列名无法识别，按位置：{mapping}。请确认。",
        "Column names say nothing; by position: {mapping}. Please confirm.",
        Remedy.MAP_COLUMNS,
    ),
    "group_column_guessed": Kind(
        I,
        "按“{column}”列分组划分训练与验证，同组不跨两边。如不对请修改列的用途。",
        "Rows are kept together by column '{column}' when rows are held out. Change the columns if wrong.",
    ),
}
