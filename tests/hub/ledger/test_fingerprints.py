"""A transfer's fingerprint is stored for ever, so its bytes may never change with what writes them."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict

from hub.columns import write_json
from hub.ledger.rules import Movement, fingerprint
from hub.ledger.tables import TransferKind

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
amounts = st.integers(0, 2**63 - 1)


@given(
    st.builds(
        Movement,
        id=texts,
        kind=st.sampled_from(TransferKind),
        amount_fen=amounts,
        code=texts,
        debit_id=texts,
        credit_id=texts,
        pending_id=st.none() | texts,
        reverses_id=st.none() | texts,
        rule_version_id=st.none() | texts,
        price_version_id=st.none() | texts,
        lease_s=st.none() | amounts,
    ),
    texts,
    st.integers(0, 1000),
)
def test_is_that_of_the_canonical_text(movement: Movement, group_id: str, position: int) -> None:
    said = {**asdict(movement), "kind": str(movement.kind), "group_id": group_id, "position": position}
    assert fingerprint(movement, group_id, position) == hashlib.sha256(write_json(said).encode()).hexdigest()


def test_is_what_it_was() -> None:
    movement = Movement("tra_1", TransferKind.PENDING, 5, "hold", "acc_1", "acc_2", lease_s=60)
    assert fingerprint(movement, "grp_1", 0) == "6da07e0070f4a345842a476d209a37be15333802e6fa5aa81ecff5bc338f0ffc"
