"""Data sets on the pages: upload, report by line, columns, acknowledgement, deletion, who sees them."""

import io

from sqlalchemy import select

from finetune.spec import SourceFormat
from hub.datasets.previews import PREVIEW_KIND
from hub.datasets.tables import DatasetPreview, PreviewState
from hub.jobs.service import cancel_waiting_job
from marketplace_ui.columns import read_columns
from tests.ui.world import World
from tests.ui_b.conftest import Shop
from tests.ui_b.scene import BROKEN, ODD_COLUMNS, WARNED, add_data, id_in, plan_run, upload, work_until


def test_report_names_code_rows_and_message_in_both_languages(shop: Shop) -> None:
    path = f"/datasets/{shop.shown['broken']}"
    english, chinese = (shop.world.visit("factory", language).get(path).text for language in ("en", "zh"))
    for page in (english, chinese):
        assert "invalid_json" in page
        assert "example_missing_assistant_message" in page
    assert "Lines 2: not valid JSON" in english
    assert "Rows: 2" in english
    assert "第 2 行不是有效的 JSON" in chinese
    assert "acknowledge" not in chinese


def test_ready_data_offers_to_tune_and_shows_first_rows(shop: Shop) -> None:
    page = shop.world.visit("factory").get(f"/datasets/{shop.shown['ready']}").text
    assert f"/runs/new?data={shop.shown['ready']}" in page
    assert "Pump 0 leaks at seal 0" in page
    assert shop.shown["done"] in page


def test_an_answer_of_weight_0_is_marked_as_not_learned(market: World) -> None:
    client = market.visit("factory")
    turns = '{"role":"user","content":"press %d jams"},{"role":"assistant","content":"kick it %d","weight":0}'
    answer = '{"role":"user","content":"no"},{"role":"assistant","content":"oil the guide of press %d","weight":1}'
    lines = [f'{{"messages":[{turns % (n, n)},{answer % n}]}}' for n in range(20)]
    dataset_id = add_data(market, client, "\n".join(lines).encode(), "weighted.jsonl")
    samples = client.get(f"/datasets/{dataset_id}").text.split('aria-labelledby="samples"')[1]
    shown = [line for line in samples.split("<p ") if "not learned" in line]
    assert len(shown) > 3
    assert all("kick it" in line for line in shown)


def test_refused_upload_keeps_the_name_beside_its_message(market: World) -> None:
    client = market.visit("factory")
    form = {"file": (io.BytesIO(b"x"), "rows.exe"), "name": "my typed name"}
    answer = client.post("/datasets", data=form, content_type="multipart/form-data")
    assert answer.status_code == 422
    assert 'value="my typed name"' in answer.text
    assert "&#39;.exe&#39; is not supported" in answer.text
    assert 'aria-describedby="h-file e-file"' in answer.text
    nothing = client.post("/datasets", data={"name": "n"}, content_type="multipart/form-data")
    assert "Choose a file to upload." in nothing.text


def test_page_waits_while_checking_then_warnings_are_acknowledged(market: World) -> None:
    client = market.visit("factory")
    dataset_id = upload(client, WARNED, "warned.csv", "Pump orders")
    path = f"/datasets/{dataset_id}"
    assert 'hx-trigger="every 2s"' in client.get(path).text
    page = work_until(market, client, path, lambda text: "every 2s" not in text)
    assert "few_examples" in page
    assert client.post(f"{path}/acknowledge").headers["Location"] == f"{path}?done=acknowledged"
    page = client.get(f"{path}?done=acknowledged").text
    assert "Fine-tune with it" in page
    assert "acknowledged; the data set can be used" in page


def test_columns_are_offered_and_checked_again_when_swapped(market: World) -> None:
    client = market.visit("factory")
    dataset_id = upload(client, ODD_COLUMNS, "工单.csv")
    page = work_until(market, client, f"/datasets/{dataset_id}", lambda text: "every 2s" not in text)
    assert "columns_guessed_by_position" in page
    refused = client.post(f"/datasets/{dataset_id}/columns", data={"column-0": "prompt", "column-1": "prompt"})
    assert refused.status_code == 422
    assert "must be exactly one column" in refused.text
    answer = client.post(f"/datasets/{dataset_id}/columns", data={"column-0": "completion", "column-1": "prompt"})
    assert id_in(answer.headers["Location"], "dst") == dataset_id
    page = work_until(market, client, f"/datasets/{dataset_id}", lambda text: "every 2s" not in text)
    assert "Version 2" in page
    assert "columns_guessed" not in page
    assert 'value="completion" selected' in page
    assert "columns_guessed_by_position" in client.get(f"/datasets/{dataset_id}?version=1").text


def test_another_data_set_is_chosen_for_validation_and_leads_to_a_run(market: World) -> None:
    client = market.visit("factory")
    training, held = (add_data(market, client, _write_rows(part), f"{part}.jsonl") for part in ("pump", "oven"))
    path = f"/datasets/{training}"
    page = client.get(path).text
    assert "Validate on another data set" in page
    assert f'<option value="{held}">' in page
    assert client.post(f"{path}/validation", data={"validation_dataset_id": training}).status_code == 422
    location = client.post(f"{path}/validation", data={"validation_dataset_id": held}).headers["Location"]
    assert location == f"{path}?version=2&done=validated"
    page = work_until(market, client, location, lambda text: "every 2s" not in text)
    assert "By your own validation file" in page
    assert "validates on another" in page
    assert client.post(f"{path}/acknowledge?version=2").headers["Location"] == f"{path}?version=2&done=acknowledged"
    version = id_in(client.get(f"{path}?version=2").text.split("/runs/new?data=")[1], "dsv")
    assert f'value="{version}" required' in client.get("/runs/new?base=guanmo/demo-zh").text
    assert "another data set" in client.get(f"/runs/new?base=guanmo/demo-zh&data={version}").text
    run_id = plan_run(market, client, version, name="validated")
    assert f"data={version}" in client.get(f"/runs/{run_id}").text
    assert "another data set" not in client.get(f"/runs/new?base=guanmo/demo-zh&data={training}").text


def _write_rows(part: str) -> bytes:
    turn = (
        '{{"messages":[{{"role":"user","content":"{0} {1} leaks"}},{{"role":"assistant","content":"seal {0} {1}"}}]}}'
    )
    return "\n".join(turn.format(part, n) for n in range(40)).encode()


def test_deletion_leaves_a_receipt_and_no_file(market: World) -> None:
    client = market.visit("factory", "zh")
    dataset_id = add_data(market, client, BROKEN, "broken.jsonl")
    assert client.post(f"/datasets/{dataset_id}/delete").status_code == 302
    page = client.get(f"/datasets/{dataset_id}").text
    assert "删除回执" in page
    assert id_in(page, "rcp")
    assert dataset_id not in client.get("/datasets").text


def test_others_see_nothing(shop: Shop) -> None:
    path = f"/datasets/{shop.shown['ready']}"
    for who in ("developer", "operator", "auditor"):
        assert shop.world.visit(who).get(path).status_code == 404
    assert shop.world.visit("auditor").get("/datasets").status_code == 403
    assert shop.world.visit().get(path).headers["Location"].startswith("/sign-in")
    assert shop.world.visit("developer").post(f"{path}/delete").status_code == 404


def test_columns_of_unreadable_files_are_none(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "source"
    cases = {
        SourceFormat.XLSX: (b"PK no zip", []),
        SourceFormat.JSONL: (b'{"messages": []}\n', []),
        SourceFormat.CSV: ("问题；,答案\n".encode("gb18030"), ["问题；", "答案"]),
    }
    for source_format, (content, names) in cases.items():
        path.write_bytes(content)
        assert read_columns(path, source_format) == names
    path.write_bytes(b'{"q": 1, "a": 2}\n')
    assert read_columns(path, SourceFormat.JSONL) == ["q", "a"]


def test_findings_are_filtered_by_kind_and_all_of_one_kind_are_corrected(market: World) -> None:
    client = market.visit("factory")
    rows = b"question,answer\n" + b"".join(b"pump %d leaks,replace seal %d\n" % (n, n) for n in range(40))
    dataset_id = upload(client, rows + b"call 13812345678,=cmd|x\ntoo few\n", "rows.csv")
    path = f"/datasets/{dataset_id}"
    page = work_until(market, client, path, lambda text: "every 2s" not in text)
    assert "call [手机号]" in page
    assert "13812345678" not in page
    only = client.get(f"{path}?code=csv_column_count").text
    assert "call [手机号]" not in only
    assert "Leave all of these rows out" in only
    assert client.get(f"{path}?code=no_such&cursor=7&severity=Q&version=x").status_code == 200
    refused = client.post(f"{path}/fix", data={"code": "csv_column_count", "action": "mask"})
    assert (refused.status_code, "is not offered" in refused.text) == (422, True)
    assert client.post(f"{path}/fix", data={"code": "csv_column_count", "action": "drop"}).status_code == 302
    page = work_until(market, client, path, lambda text: "every 2s" not in text)
    assert "As you asked" in page
    assert client.post(f"{path}/fix", data={"all": "yes"}).headers["Location"] == f"{path}?done=fixed"
    page = work_until(market, client, path, lambda text: "every 2s" not in text)
    assert "Version 3" in page
    assert "By question" in page
    assert client.get(f"{path}?version=1").text.count("Leave all of these rows out") == 0


def test_a_base_whose_tokens_cannot_be_shown_says_why(market: World, data: str) -> None:
    client = market.visit("factory")
    path = f"/datasets/{data}"
    page = client.get(path).text
    assert "Show the tokens" in page
    base = page.partition('name="base"')[2].partition('value="')[2].partition('"')[0]
    assert client.post(f"{path}/preview", data={"base": base}).headers["Location"] == f"{path}?done=previewed#tokens"
    assert "In the making" in client.get(path).text
    with market.sessions.write() as session:
        asked = session.scalars(select(DatasetPreview)).one()
        cancel_waiting_job(session, kind=PREVIEW_KIND, subject=asked.id, now=asked.created_at)
        asked.state, asked.reason_code = PreviewState.FAILED, "stop_token_not_trained"
    assert "would not learn to stop" in client.get(path).text
    assert client.post(f"{path}/preview", data={"base": "no/such"}).status_code == 422


def test_rights_are_noted_and_deletion_waits_for_nothing_here(market: World) -> None:
    client = market.visit("factory", "zh")
    dataset_id = add_data(market, client)
    path = f"/datasets/{dataset_id}"
    assert client.post(f"{path}/registration", data={"number": "", "owner": "x"}).status_code == 422
    client.post(f"{path}/registration", data={"number": "DEMO-IP-1", "owner": "演示厂"})
    assert "DEMO-IP-1" in client.get(path).text
    assert client.post(f"{path}/delete").status_code == 302
    assert "回执指纹" in client.get(path).text
