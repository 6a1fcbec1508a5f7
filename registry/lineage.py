"""Where a version comes from, by content: base, data, code, recipe, parent, product.

It leaves who made it and when to the hub's rows.
"""

import hashlib
import json
import re
from dataclasses import dataclass

from registry.errors import RegistryError

LINEAGE_VERSION = 1
_DIGEST = re.compile(r"[0-9a-f]{64}")


class LineageRefusedError(RegistryError):
    """A digest of the lineage is not one."""

    code = "lineage_refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Digests only, each 64 lower-case hex digits; `data_digests` keep no order.

    An adapter that was trained elsewhere has no data, code or recipe digest.
    """

    base_weights_digest: str
    artifact_digest: str
    data_digests: tuple[str, ...] = ()
    code_digest: str | None = None
    recipe_digest: str | None = None
    parent_artifact_digest: str | None = None

    def __post_init__(self) -> None:
        """Raises: LineageRefusedError naming the field."""
        object.__setattr__(self, "data_digests", tuple(sorted(set(self.data_digests))))
        optional = (self.code_digest, self.recipe_digest, self.parent_artifact_digest)
        stated = [value for value in optional if value is not None]
        for value in (self.base_weights_digest, self.artifact_digest, *self.data_digests, *stated):
            if not _DIGEST.fullmatch(value):
                raise LineageRefusedError(
                    f"{value[:80]!r} in a lineage is not 64 lower-case hex digits. Give the content's sha256.",
                    f"血缘中的 {value[:80]!r} 不是 64 位小写十六进制。请填写内容的 sha256。",
                )

    def as_dict(self) -> dict[str, object]:
        """Return the lineage with its format version, ready for JSON."""
        return {
            "lineage_version": LINEAGE_VERSION,
            "base_weights_digest": self.base_weights_digest,
            "artifact_digest": self.artifact_digest,
            "data_digests": list(self.data_digests),
            "code_digest": self.code_digest,
            "recipe_digest": self.recipe_digest,
            "parent_artifact_digest": self.parent_artifact_digest,
        }

    def canonical_json(self) -> str:
        """Return the one JSON text of this lineage: sorted keys, no spaces."""
        return json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"))

    def digest(self) -> str:
        """Return the sha256 of `canonical_json`."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()

    def as_tags(self) -> dict[str, str]:
        """Return the `guanmo.*` tags a mirror keeps beside the version."""
        tags = {f"guanmo.{key}": str(value) for key, value in self.as_dict().items() if isinstance(value, str)}
        return tags | {"guanmo.data_digests": ",".join(self.data_digests), "guanmo.lineage_digest": self.digest()}
