"""The ledger's refusals: one class and one stable code for each rule, so that a caller can tell them apart.

It leaves the texts, which name value and limit, to where the rule is checked.
"""

from hub.errors import ConflictError, GuanmoError, IdempotencyConflictError, InvalidValueError


class AmountNotWholeError(InvalidValueError):
    """A float, a truth value, a text: not a whole number of fen."""

    code = "amount_not_whole"


class AmountNotPositiveError(InvalidValueError):
    """Zero or negative."""

    code = "amount_not_positive"


class AmountTooLargeError(InvalidValueError):
    """Above what one transfer may move."""

    code = "amount_too_large"


class AccountLimitError(GuanmoError):
    """A debit would take more than the account holds, or a credit more than it is owed."""

    code = "account_limit"
    status = 402


class TransferConflictError(IdempotencyConflictError):
    """A transfer id came again with other content."""

    code = "transfer_conflict"


class HoldResolvedError(ConflictError):
    """The hold was posted or voided before; a hold ends once."""

    code = "hold_already_resolved"


class HoldExpiredError(ConflictError):
    """The hold's lease ran out; renew it or void it."""

    code = "hold_expired"


class PeriodClosedError(ConflictError):
    """The month is closed; what comes late is dated in an open one."""

    code = "period_closed"


class ReversalError(ConflictError):
    """The transfer cannot be reversed, or was before."""

    code = "not_reversible"
