"""Builds a claim's pack: one ZIP with everything that backs its lines, the same bytes each time.

Names are sorted, times fixed, nothing is compressed (zlib's output differs between versions). Only records that stood
when the claim was cut go in. It leaves what the facts are to `evidence` and the claim's life to `drafting`.
"""

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import IO, Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.claims.drafting import list_lines
from hub.claims.evidence import describe_charge, describe_redemption, list_charges, list_filings
from hub.claims.tables import Claim, ClaimLine
from hub.filings.tables import Filing
from hub.ledger.tables import Transfer, TransferKind
from hub.orders.tables import Charge
from hub.organisations.service import find_organisation
from hub.vouchers.endings import list_claw_backs
from hub.vouchers.papers import list_papers
from hub.vouchers.tables import Application, Grant, Programme, RuleVersion
from registry.errors import RegistryError
from registry.store import FolderStore

_TIME = (1980, 1, 1, 0, 0, 0)
LINE_COLUMNS = (
    "position",
    "firm",
    "uscc",
    "contract_no",
    "grant_id",
    "programme",
    "rule_number",
    "rule_sha256",
    "month",
    "transfer_id",
    "charges",
    "eligible_fee_fen",
    "claimed_fen",
    "invoices",
)


@dataclass(frozen=True)
class _File:
    sha256: str
    read: Callable[[], bytes]


@dataclass
class _Pack:
    """Files by path, facts for the manifest, and what a reader looks for and does not find."""

    store: FolderStore
    files: dict[str, _File] = field(default_factory=dict)
    papers: list[dict[str, Any]] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)

    def add_text(self, path: str, text: str) -> None:
        content = text.encode()
        self.files[path] = _File(hashlib.sha256(content).hexdigest(), lambda: content)

    def add_json(self, path: str, value: Any) -> None:
        self.add_text(path, json.dumps(value, ensure_ascii=False, sort_keys=True, indent=1) + "\n")

    def add_paper(self, folder: str, kind: str, digest: str, name: str, **facts: Any) -> None:
        """Add a document under a name of our making; the name it came under stands in the manifest."""
        listed = {"kind": kind, "name": name, "artifact": digest, **facts}
        try:
            [(stored, sha256)] = self.store.get(digest).files.items()
        except (RegistryError, ValueError):
            self.gaps.append(f"{folder}: {kind} '{name}' ({digest}) is declared, its document is not held here")
            self.papers.append({**listed, "path": None})
            return
        path = f"{folder}/{kind}-{digest[:16]}{PurePath(stored).suffix}"
        self.files[path] = _File(sha256, lambda: (self.store.path(digest) / stored).read_bytes())
        self.papers.append({**listed, "path": path})


def write_pack(session: Session, store: FolderStore, claim: Claim, target: IO[bytes]) -> str:
    """Write the ZIP and return its sha256. Papers whose bytes the store does not hold are named as gaps."""
    pack = _Pack(store)
    lines = list_lines(session, claim.id)
    grants = {line.grant_id: session.get_one(Grant, line.grant_id) for line in lines}
    _add_lines(session, pack, claim, lines, grants)
    _add_rules(session, pack, claim, grants)
    _add_grants(session, pack, claim, grants)
    _add_manifest(session, pack, claim, lines)
    pack.add_text("SHA256SUMS", "".join(f"{pack.files[path].sha256}  {path}\n" for path in sorted(pack.files)))
    return _write_zip(pack, target)


def _add_lines(session: Session, pack: _Pack, claim: Claim, lines: list[ClaimLine], grants: dict[str, Grant]) -> None:
    papers = list_papers(session, sorted(grants), moment=claim.cut_at)
    table = io.StringIO()
    writer = csv.DictWriter(table, LINE_COLUMNS, lineterminator="\n")
    writer.writeheader()
    charges: dict[str, Charge] = {}
    for line in lines:
        transfer = session.scalars(select(Transfer).where(Transfer.id == line.transfer_id)).one()
        found = list_charges(session, transfer, line.grant_id)
        charges.update({charge.id: charge for charge in found})
        pack.add_json(f"payments/{transfer.id}.json", _describe_money(session, transfer, line))
        month = found[0].month if found else ""
        invoices = [
            paper.number
            for paper in papers
            if (paper.grant_id, paper.kind, paper.month) == (line.grant_id, "invoice", month)
        ]
        row = _describe_line(session, line, grants[line.grant_id], found)
        writer.writerow({**row, "month": month, "invoices": " ".join(sorted(invoices))})
    pack.add_text("lines.csv", table.getvalue())
    for charge in charges.values():
        pack.add_json(f"meter/{charge.id}.json", describe_charge(session, charge))
    for filing in list_filings(session, list(charges.values())):
        _add_filing(pack, claim, filing)


def _describe_line(session: Session, line: ClaimLine, grant: Grant, charges: list[Charge]) -> dict[str, Any]:
    firm = find_organisation(session, line.organisation_id)
    version = session.get_one(RuleVersion, grant.rule_version_id)
    return {
        "position": line.position,
        "firm": firm.name,
        "uscc": firm.uscc,
        "contract_no": session.get_one(Application, grant.application_id).contract_no,
        "grant_id": grant.id,
        "programme": session.get_one(Programme, grant.programme_id).code,
        "rule_number": version.number,
        "rule_sha256": version.sha256,
        "transfer_id": line.transfer_id,
        "charges": " ".join(charge.id for charge in charges),
        "eligible_fee_fen": sum(charge.fee_fen for charge in charges),
        "claimed_fen": line.amount_fen,
    }


def _describe_money(session: Session, transfer: Transfer, line: ClaimLine) -> dict[str, Any]:
    """Return the whole posting that a line is from: what the voucher paid, what the firm paid, who received it."""
    moved = session.scalars(
        select(Transfer)
        .where(Transfer.group_id == transfer.group_id, Transfer.kind.in_((TransferKind.SINGLE, TransferKind.POST)))
        .order_by(Transfer.position)
    )
    return {
        "claimed_transfer": transfer.id,
        "claimed_fen": line.amount_fen,
        "group": transfer.group_id,
        "business": {"type": transfer.business_type, "id": transfer.business_id},
        "redemption": describe_redemption(session, transfer),
        "transfers": [
            {
                "id": row.id,
                "code": row.code,
                "debit": row.debit_id,
                "credit": row.credit_id,
                "amount_fen": row.amount_fen,
                "event_at": row.event_at.isoformat(),
                "recorded_at": row.recorded_at.isoformat(),
                "actor": row.actor_id,
                "rule_version_id": row.rule_version_id,
                "price_version_id": row.price_version_id,
            }
            for row in moved
        ],
    }


def _add_filing(pack: _Pack, claim: Claim, filing: Filing) -> None:
    withdrawn = filing.withdrawn_at is not None and filing.withdrawn_at <= claim.cut_at
    pack.add_json(
        f"filings/{filing.id}.json",
        {
            "id": filing.id,
            "number": filing.number,
            "model": filing.model_name,
            "holder": filing.holder,
            "authority": filing.authority,
            "track": str(filing.track),
            "weights_digest": filing.weights_digest,
            "filed_at": filing.filed_at.isoformat(),
            "valid_until": filing.valid_until.isoformat() if filing.valid_until else None,
            "withdrawn_at": filing.withdrawn_at.isoformat() if withdrawn and filing.withdrawn_at else None,
        },
    )
    pack.add_paper("filings", "filing", filing.evidence_digest, filing.evidence_name, filing=filing.number)


def _add_rules(session: Session, pack: _Pack, claim: Claim, grants: dict[str, Grant]) -> None:
    code = session.get_one(Programme, claim.programme_id).code
    for key in sorted({grant.rule_version_id for grant in grants.values()}):
        version = session.get_one(RuleVersion, key)
        pack.add_json(
            f"rules/{code}-v{version.number}.json",
            {
                "id": version.id,
                "programme": code,
                "number": version.number,
                "effective_from_at": version.effective_from_at.isoformat(),
                "effective_to_at": version.effective_to_at.isoformat() if version.effective_to_at else None,
                "tz": version.tz,
                "basis_date": version.basis_date,
                "source": version.source,
                "sha256": version.sha256,
                "drafted_by": version.drafted_by,
                "approved_by": version.approved_by,
                "body": version.body,
            },
        )


def _add_grants(session: Session, pack: _Pack, claim: Claim, grants: dict[str, Grant]) -> None:
    for grant in (grants[key] for key in sorted(grants)):
        application = session.get_one(Application, grant.application_id)
        folder = f"papers/{find_organisation(session, grant.organisation_id).uscc}/{grant.id}"
        facts = {"grant_id": grant.id, "contract_no": application.contract_no}
        for paper in application.evidence:
            pack.add_paper(folder, paper["kind"], paper["digest"], paper["name"], **facts)
        for row in list_papers(session, [grant.id], moment=claim.cut_at):
            pack.add_paper(
                folder,
                str(row.kind),
                row.digest,
                row.name,
                **facts,
                month=row.month,
                number=row.number,
                issuer_uscc=row.issuer_uscc,
                amount_fen=row.amount_fen,
            )


def _add_manifest(session: Session, pack: _Pack, claim: Claim, lines: list[ClaimLine]) -> None:
    programme = session.get_one(Programme, claim.programme_id)
    taken_back = [row for row in list_claw_backs(session, sorted({line.grant_id for line in lines}))]
    pack.add_json(
        "manifest.json",
        {
            "format": "guanmo-claim-1",
            "claim": {
                "id": claim.id,
                "programme": programme.code,
                "title": {"zh": programme.title_zh, "en": programme.title_en},
                "authority": programme.authority,
                "number": claim.number,
                "period": claim.period,
                "firm": claim.organisation_id or None,
                "cut_at": claim.cut_at.isoformat(),
                "drafted_by": claim.drafted_by,
                "amount_fen": claim.amount_fen,
                "lines": len(lines),
            },
            "left_out": claim.left_out,
            "claw_backs": [
                {
                    "grant_id": row.grant_id,
                    "charge_id": row.charge_id,
                    "correction_id": row.correction_id,
                    "amount_fen": row.amount_fen,
                    "reason": row.reason,
                    "created_at": row.created_at.isoformat(),
                }
                for row in taken_back
                if row.created_at <= claim.cut_at
            ],
            "papers": pack.papers,
            "gaps": pack.gaps,
            "files": {path: pack.files[path].sha256 for path in sorted(pack.files)},
            "demonstration": find_demo(session, lines),
        },
    )


def find_demo(session: Session, lines: list[ClaimLine]) -> bool:
    """Say whether any firm of the lines is a demonstration firm: such a claim is no claim."""
    return any(find_organisation(session, key).demo for key in sorted({line.organisation_id for line in lines}))


def _write_zip(pack: _Pack, target: IO[bytes]) -> str:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(pack.files):
            entry = zipfile.ZipInfo(path, _TIME)
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, pack.files[path].read())
    target.seek(0)
    digest = hashlib.sha256()
    while block := target.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
