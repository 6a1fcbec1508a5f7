"""Rows that say nearly the same: candidates by MinHash bands, 64 bytes a row, each proved on its texts.

Leaves what becomes of them to the report. Rows with different numbers are different rows: pump 3 is not pump 4.
Source: Broder 1997 (min-wise permutations), Indyk & Motwani 1998 (bands); multiply-shift hashing of 3-grams.
"""

import re
import zlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

BANDS, _HASHES_OF_A_BAND = 8, 4
LEAST_SIMILARITY = 0.85
"""Jaccard similarity of the sets of 3-grams; rows at it share a band with probability 0.997."""
MOST_PAIRS = 200_000
"""A search proves so many candidates at most: reading texts back must not cost more than reading the file."""
_GRAM = 3
_LEAST_CHARS = 12
_BATCH_CHARS = 1 << 19
_NOISE = re.compile(r"[\s,.;:!?，。；：！？、()（）\"'“”‘’\[\]【】-]+")
_NUMBERS = re.compile(r"[0-9]+")
_SEED = 20_261_121


class Sketcher:
    """Band values of texts in order; works in batches so that a row costs microseconds."""

    def __init__(self) -> None:
        import numpy

        source = numpy.random.default_rng(_SEED)
        count = BANDS * _HASHES_OF_A_BAND
        self._factors = source.integers(1, 2**63, size=count, dtype=numpy.uint64) * numpy.uint64(2) + numpy.uint64(1)
        self._bands = array("Q")
        self._texts: list[str] = []
        self._chars = 0

    def add(self, text: str) -> None:
        """Sketch one more text."""
        self._texts.append(text)
        self._chars += len(text)
        if self._chars >= _BATCH_CHARS:
            self._work()

    def read_band(self, band: int) -> Any:
        """(n,) uint64: one band of all texts so far; 0 for a text too short to compare."""
        import numpy

        self._work()
        return numpy.array(self._bands[band::BANDS])

    def _work(self) -> None:
        import numpy

        if not self._texts:
            return
        plain = [normalise(text) for text in self._texts]
        numbers = numpy.array([_digest_numbers(text) for text in plain], dtype=numpy.uint64)
        padded = [text if len(text) >= _GRAM else text.ljust(_GRAM) for text in plain]
        lengths = numpy.array([len(text) for text in padded])
        grams = _hash_grams("".join(padded))
        starts = numpy.concatenate(([0], numpy.cumsum(lengths)[:-1]))
        # a gram that runs into the next text is taken out of both: the largest value is never the least
        ends = starts + lengths
        grams[numpy.concatenate([ends - 1, ends - 2])] = numpy.iinfo(numpy.uint64).max
        found = numpy.empty((len(plain), BANDS), dtype=numpy.uint64)
        for band in range(BANDS):
            mixed = numbers * numpy.uint64(0x9E3779B97F4A7C15) + numpy.uint64(band + 1)
            for factor in self._factors[band * _HASHES_OF_A_BAND : (band + 1) * _HASHES_OF_A_BAND]:
                least = numpy.minimum.reduceat((grams * factor) >> numpy.uint64(20), starts)
                mixed = (mixed ^ least) * numpy.uint64(0xBF58476D1CE4E5B9)
                mixed ^= mixed >> numpy.uint64(31)
            found[:, band] = mixed
        found[[len(text) < _LEAST_CHARS for text in plain]] = 0
        self._bands.frombytes(found.tobytes())
        self._texts, self._chars = [], 0


@dataclass
class PairCount:
    """How far a search got: pairs that it compared, and rows with a candidate left over at the limit."""

    compared: int = 0
    left: int = 0

    def describe(self) -> dict[str, Any]:
        """The figures that a message of a search cut short names."""
        return {"compared": self.compared, "limit": MOST_PAIRS, "left": self.left}


def find_near_rows(
    read_band: Callable[[int], Any],
    kept: Any,
    read_text: Callable[[int], str],
    *,
    count: PairCount,
    others: int | None = None,
) -> Iterator[tuple[int, int]]:
    """Yield (row, earlier row that it nearly repeats), each row once; `kept` (n,) bool, others are not looked at.

    `read_band` gives (n,) uint64 for each of BANDS. With `others` only rows from there on are compared, and only with
    rows before it: two files, one after the other. `count` is complete once the search is read to its end.
    """
    import numpy

    told: set[int] = set()
    left = numpy.zeros(len(kept), dtype=bool)
    for band in range(BANDS):
        values = read_band(band)
        usable = numpy.flatnonzero(kept & (values != 0))
        order = usable[numpy.argsort(values[usable], kind="stable")]
        repeats = numpy.flatnonzero(values[order][1:] == values[order][:-1]) + 1
        first = -1
        for at in repeats.tolist():
            row, before = int(order[at]), int(order[at - 1])
            # the first row of an equal run stands for it: one comparison a row, however long the run
            first = first if first >= 0 and values[first] == values[row] else before
            if row in told or (others is not None and not first < others <= row):
                continue
            if count.compared >= MOST_PAIRS:
                left[row] = True
                continue
            count.compared += 1
            if measure_similarity(read_text(first), read_text(row)) >= LEAST_SIMILARITY:
                told.add(row)
                yield row, first
    count.left = int(left.sum())


def measure_similarity(one: str, other: str) -> float:
    """Jaccard similarity of the 3-grams of two texts, 0 if their numbers differ."""
    first, second = normalise(one), normalise(other)
    if _NUMBERS.findall(first) != _NUMBERS.findall(second):
        return 0.0
    grams = [{text[at : at + _GRAM] for at in range(max(1, len(text) - _GRAM + 1))} for text in (first, second)]
    return len(grams[0] & grams[1]) / len(grams[0] | grams[1])


def normalise(text: str) -> str:
    """Lower case without blanks and punctuation: what is left decides whether two rows say the same."""
    return _NOISE.sub("", text.lower())


def _digest_numbers(text: str) -> int:
    return zlib.crc32("|".join(_NUMBERS.findall(text)).encode())


def _hash_grams(text: str) -> Any:
    """(len(text),) uint64: a hash of the 3-gram that starts at each character; the last two are of no use."""
    import numpy

    points = numpy.frombuffer(text.encode("utf-32-le"), dtype=numpy.uint32).astype(numpy.uint64)
    mixed = points * numpy.uint64(0x9E3779B97F4A7C15)
    mixed[:-1] += points[1:] * numpy.uint64(0xC2B2AE3D27D4EB4F)
    mixed[:-2] += points[2:] * numpy.uint64(0x165667B19E3779F9)
    mixed ^= mixed >> numpy.uint64(29)
    mixed *= numpy.uint64(0xBF58476D1CE4E5B9)
    return mixed ^ (mixed >> numpy.uint64(32))
