"""The Merkle tree against the published vectors and against itself for every size up to 40."""

from hub.audit.tree import (
    EMPTY_ROOT,
    hash_leaf,
    is_consistent,
    is_included,
    prove_consistency,
    prove_inclusion,
    root_of_leaves,
)

# Source: certificate-transparency's Merkle tree test vectors (RFC 6962).
INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = {
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    5: "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}
LEAVES = [hash_leaf(bytes.fromhex(text)) for text in INPUTS]


def test_roots_are_those_of_the_standard() -> None:
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert {size: root_of_leaves(LEAVES[:size]).hex() for size in ROOTS} == ROOTS


def test_every_leaf_of_every_size_is_proved_included() -> None:
    leaves = [hash_leaf(bytes([number])) for number in range(40)]
    for size in range(1, 41):
        root = root_of_leaves(leaves[:size])
        for index in range(size):
            path = prove_inclusion(leaves[:size], index)
            assert is_included(leaves[index], index, size, path=path, root=root)
            assert not is_included(leaves[index - 1], index, size, path=path, root=root) or size == 1
            assert not is_included(leaves[index], index, size, path=[*path, root], root=root)


def test_every_size_is_consistent_with_every_later_one() -> None:
    leaves = [hash_leaf(bytes([number])) for number in range(40)]
    roots = [root_of_leaves(leaves[:size]) for size in range(41)]
    for new in range(1, 41):
        for old in range(1, new + 1):
            path = prove_consistency(leaves[:new], old)
            assert is_consistent((old, roots[old]), (new, roots[new]), path)
            assert not is_consistent((old, roots[old - 1]), (new, roots[new]), path)
