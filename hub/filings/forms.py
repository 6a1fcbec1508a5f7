"""Reads multipart forms strictly: typed fields, named files, nothing unknown. It leaves bodies of JSON to the edge.

Not flask-openapi3's own form reading: it parses every field as JSON, which turns the number "1e5" into 100000.0 and
fails on a field of 5,000 digits.
"""

from pathlib import Path
from typing import TypeVar

from flask import request
from pydantic import ValidationError
from werkzeug.datastructures import FileStorage

from hub.errors import InvalidValueError
from hub.web import Query

Form = TypeVar("Form", bound=Query)


class BadFormError(InvalidValueError):
    """Fields of a form are missing, unknown or of the wrong type; all are told together."""

    code = "invalid_value"


def read_form(kind: type[Form]) -> Form:
    """Return the request's form fields as `kind`.

    Raises:
        BadFormError: with `errors`, one entry a field.
    """
    repeated = [name for name, values in request.form.lists() if len(values) > 1]
    if repeated:
        raise BadFormError(
            f"Field '{repeated[0][:60]}' came more than once; send it once.", "表单字段重复。", field=repeated[0][:60]
        )
    try:
        return kind.model_validate(request.form.to_dict())
    except ValidationError as error:
        raise _explain(error) from error


def take_files(field: str, *, least: int, most: int) -> list[FileStorage]:
    """Return the uploaded files of one field.

    Raises:
        BadFormError: too few, too many, or files under another field.
    """
    other = sorted(set(request.files) - {field})
    files = request.files.getlist(field)
    if other or not least <= len(files) <= most:
        raise BadFormError(
            f"Send {least} to {most} files under '{field}'; there came {len(files)}"
            f"{f' and others under {other[0][:60]!r}' if other else ''}.",
            f"请在“{field}”字段上传 {least} 至 {most} 个文件，现为 {len(files)} 个。",
            field=field,
        )
    return files


def save_file(file: FileStorage, target: Path, *, max_bytes: int) -> int:
    """Write an uploaded file and return its size in bytes.

    Raises:
        BadFormError: it is empty or longer than the limit; nothing is left of it.
    """
    size_bytes = 0
    with target.open("xb") as sink:
        while chunk := file.stream.read(1 << 20):
            size_bytes += len(chunk)
            if size_bytes > max_bytes:
                break
            sink.write(chunk)
    if 0 < size_bytes <= max_bytes:
        return size_bytes
    target.unlink()
    raise BadFormError(
        f"File '{(file.filename or '')[:80]}' has {'more than ' if size_bytes else ''}{min(size_bytes, max_bytes)} "
        f"bytes; send 1 to {max_bytes}.",
        f"文件大小须为 1 至 {max_bytes} 字节。",
        field=file.name,
    )


def _explain(error: ValidationError) -> BadFormError:
    errors = [
        {"pointer": "/" + "/".join(str(part) for part in item["loc"]), "code": item["type"], "detail": item["msg"]}
        for item in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    detail = "; ".join(f"{item['pointer']}: {item['detail']}" for item in errors)
    return BadFormError(detail, f"表单有误：{detail}", errors=errors)
