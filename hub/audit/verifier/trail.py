"""Checks the trail: files, digests of rows, hash chain, Merkle tree. It leaves signatures to `signatures`."""

import hashlib
from collections.abc import Iterator

from .reading import FORMAT, Export, canonical, digest, read_note


def check_files(export: Export) -> Iterator[str]:
    """Every file is the one that the manifest names."""
    if export.manifest.get("format") != FORMAT:
        yield f"manifest.json says format {export.manifest.get('format')!r}, this verifier reads {FORMAT!r}"
        return
    named = export.manifest["files"]
    for name in sorted(set(named) ^ (set(export.contents) - {"manifest.json"})):
        yield f"{name} is {'missing' if name in named else 'not in the manifest'}"
    for name in sorted(set(named) & set(export.contents)):
        found = hashlib.sha256(export.contents[name]).hexdigest()
        if found != named[name]["sha256"]:
            yield f"{name} has sha256 {found[:16]}…, the manifest says {named[name]['sha256'][:16]}…"


def check_rows(export: Export) -> Iterator[str]:
    """Every row is what was chained, in order, and no row of the period was left out."""
    links = export.rows("chain")
    annexes = {row["link"]: row["annex"] for name in _annex_files(export) for row in export.rows(name)}
    seen = set()
    for outbox, name in (("event", "events"), ("transfer", "transfers")):
        last = 0
        for item in export.rows(name):
            row, number = item["row"], item["link"]
            said = links[number] if 0 <= number < len(links) else {}
            if row["seq"] <= last:
                yield f"{outbox} {row['id']} stands out of order or twice in {name}.jsonl"
            last = row["seq"]
            if (said.get("outbox"), said.get("seq")) != (outbox, row["seq"]):
                yield f"{outbox} {row['id']} is not what link {number} stands for"
            elif digest({"row": row, "annex": annexes.get(number)}) != said["digest"]:
                yield f"{outbox} {row['id']} was changed: its digest is not the one on link {number}"
            seen.add(number)
    for item in links:
        if export.within(item["at"]) and item["link"] not in seen:
            yield f"{item['outbox']} {item['seq']} (link {item['link']}) is of the period but was left out"


def check_tree(export: Export) -> Iterator[str]:
    """Chain and tree over all links end in what each checkpoint says, so each old tree begins the next one."""
    wanted = {row["size"]: read_note(row["note"]) for row in export.rows("checkpoints")}
    chain, leaves = "0" * 64, []
    for number, item in enumerate(export.rows("chain")):
        if item["link"] != number:
            yield f"link {number} is missing or out of order (found {item['link']})"
            return
        content = {"outbox": item["outbox"], "seq": item["seq"], "at": item["at"], "digest": item["digest"]}
        leaves.append(hashlib.sha256(b"\x00" + canonical(content)).digest())
        chain = hashlib.sha256(bytes.fromhex(chain) + leaves[-1]).hexdigest()
        note = wanted.pop(number + 1, None)
        if note and note["chain"] != chain:
            yield f"checkpoint {number + 1} was signed over another chain: {note['chain'][:16]}…, not {chain[:16]}…"
        if note and note["root"] != _root(leaves).hex():
            yield f"checkpoint {number + 1} was signed over root {note['root'][:16]}…, not {_root(leaves).hex()[:16]}…"
    yield from (f"checkpoint {size} is beyond the last link {len(leaves)}" for size in sorted(wanted))
    if export.manifest["tree_size"] != len(leaves) or (export.manifest["root"], export.manifest["chain_hash"]) != (
        _root(leaves).hex(),
        chain,
    ):
        yield f"the manifest names tree {export.manifest['tree_size']}, the links give {len(leaves)} and another root"


def _annex_files(export: Export) -> list[str]:
    own = {"chain", "checkpoints", "transfers", "accounts", "bill_lines", "events", "manifest"}
    return sorted({name.partition(".")[0] for name in export.contents} - own)


def _root(leaves: list[bytes]) -> bytes:
    """Return the Merkle tree hash as RFC 6962 section 2.1 defines it."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    level = list(leaves)
    while len(level) > 1:
        # Pairing neighbours and carrying an odd last one up gives the same tree as the standard's splits.
        pairs = [hashlib.sha256(b"\x01" + a + b).digest() for a, b in zip(level[::2], level[1::2], strict=False)]
        level = pairs + ([level[-1]] if len(level) % 2 else [])
    return level[0]
