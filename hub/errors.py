"""The tree of coded errors: what went wrong, which value, which limit, what to do next, in two languages.

It leaves the shape on the wire (problem+json, OpenAI envelope, one line) to the edge of each process.
"""

from typing import ClassVar


class GuanmoError(Exception):
    """A refusal that a person can act on.

    Subclasses set `code` (stable, English) and `status` (HTTP) and stand beside the noun that raises them. Only a
    client that passes on another process's refusal sets `code` on the error itself.
    """

    code: str = "refused"
    status: ClassVar[int] = 400

    def __init__(self, en: str, zh: str, *, field: str | None = None, **extra: object) -> None:
        """Keep both texts; `extra` members (limit, used, left ...) go into the answer as they are."""
        super().__init__(en)
        self.en = en
        self.zh = zh
        self.field = field
        self.extra = extra

    def text(self, language: str) -> str:
        """Return the message in `zh` or `en`."""
        return self.zh if language == "zh" else self.en


class NotFoundError(GuanmoError):
    """The thing does not exist, or is not this caller's to see: the two are told apart for nobody."""

    code = "not_found"
    status = 404

    @classmethod
    def of(cls, noun: str, key: str) -> "NotFoundError":
        """Return the error for one missing noun."""
        return cls(
            f"No {noun} '{key}' here. Check the id, or sign in as its owner.",
            f"没有 {noun}“{key}”，或不属于您。请核对编号。",
        )


class InvalidValueError(GuanmoError):
    """A value of the request breaks a rule of its field."""

    code = "invalid_value"
    status = 422


class ConflictError(GuanmoError):
    """The state of the thing does not allow this step now."""

    code = "conflict"
    status = 409


class NotSignedInError(GuanmoError):
    """No valid session or key came with the request."""

    code = "not_signed_in"
    status = 401


class ForbiddenError(GuanmoError):
    """The caller is known but has not the role for this."""

    code = "forbidden"
    status = 403


class FourEyesError(ForbiddenError):
    """One person, or one organisation, may not do both halves of a check by two."""

    code = "four_eyes"


class ReasonMissingError(InvalidValueError):
    """A decision that people will read later came without its reason."""

    code = "reason_missing"


class IdempotencyConflictError(GuanmoError):
    """The same idempotency key came with another request."""

    code = "idempotency_conflict"
    status = 409
