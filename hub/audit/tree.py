"""The Merkle tree of RFC 6962 section 2.1: leaves, roots, inclusion and consistency proofs; pure, bytes only.

It leaves what a leaf says to `content` and signing roots to `signing`.
"""

import hashlib
from collections.abc import Sequence

EMPTY_ROOT = hashlib.sha256(b"").digest()


def hash_leaf(content: bytes) -> bytes:
    """Return the hash of one leaf; the prefix keeps leaves and nodes apart."""
    return hashlib.sha256(b"\x00" + content).digest()


def hash_node(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def append_leaf(peaks: list[bytes], size: int, leaf: bytes) -> None:
    """Grow a tree of `size` leaves by one, in place; `peaks` are its perfect subtrees, the largest first."""
    peaks.append(leaf)
    while size & 1:
        right = peaks.pop()
        peaks.append(hash_node(peaks.pop(), right))
        size >>= 1


def root_of_peaks(peaks: Sequence[bytes]) -> bytes:
    """Return the root of the tree that has these perfect subtrees."""
    if not peaks:
        return EMPTY_ROOT
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = hash_node(peak, root)
    return root


def root_of_leaves(leaves: Sequence[bytes]) -> bytes:
    """Return the root over leaf hashes."""
    peaks: list[bytes] = []
    for size, leaf in enumerate(leaves):
        append_leaf(peaks, size, leaf)
    return root_of_peaks(peaks)


def prove_inclusion(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Return the audit path of a leaf in the tree over `leaves`."""
    if len(leaves) == 1:
        return []
    middle = _split(len(leaves))
    if index < middle:
        return [*prove_inclusion(leaves[:middle], index), root_of_leaves(leaves[middle:])]
    return [*prove_inclusion(leaves[middle:], index - middle), root_of_leaves(leaves[:middle])]


def is_included(leaf: bytes, index: int, size: int, *, path: Sequence[bytes], root: bytes) -> bool:
    """Say whether the path leads from the leaf to the root of a tree of `size` leaves. Source: RFC 9162 §2.1.3.2."""
    if not 0 <= index < size:
        return False
    first, last, found = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return False
        if first & 1 or first == last:
            found = hash_node(sibling, found)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            found = hash_node(found, sibling)
        first, last = first >> 1, last >> 1
    return last == 0 and found == root


def prove_consistency(leaves: Sequence[bytes], old_size: int) -> list[bytes]:
    """Return the proof that the tree over `leaves` starts with that over its first `old_size`, 0 < old_size."""
    return _prove_subtree(leaves, old_size, whole=True)


def is_consistent(old: tuple[int, bytes], new: tuple[int, bytes], path: Sequence[bytes]) -> bool:
    """Say whether the tree `new` (size, root) starts with the tree `old`. Source: RFC 9162 §2.1.4.2."""
    (old_size, old_root), (new_size, new_root) = old, new
    if old_size == new_size:
        return old_root == new_root and not path
    if not 0 < old_size < new_size:
        return False
    nodes = [old_root, *path] if old_size & (old_size - 1) == 0 else list(path)
    if not nodes:
        return False
    first, last = old_size - 1, new_size - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    old_found = new_found = nodes[0]
    for node in nodes[1:]:
        if last == 0:
            return False
        if first & 1 or first == last:
            old_found, new_found = hash_node(node, old_found), hash_node(node, new_found)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            new_found = hash_node(new_found, node)
        first, last = first >> 1, last >> 1
    return last == 0 and old_found == old_root and new_found == new_root


def _prove_subtree(leaves: Sequence[bytes], old_size: int, *, whole: bool) -> list[bytes]:
    if old_size == len(leaves):
        return [] if whole else [root_of_leaves(leaves)]
    middle = _split(len(leaves))
    if old_size <= middle:
        return [*_prove_subtree(leaves[:middle], old_size, whole=whole), root_of_leaves(leaves[middle:])]
    return [*_prove_subtree(leaves[middle:], old_size - middle, whole=False), root_of_leaves(leaves[:middle])]


def _split(size: int) -> int:
    """Return the largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1
