"""The search attributes, by which operators find work in the Temporal UI. They are never encrypted: nothing personal.

All of them must be registered before a workflow runs: upserting an unknown one loops the workflow task.
"""

from __future__ import annotations

from temporalio.common import SearchAttributeKey

# Unset until the first decision: what is processing for a moment is not worth a write of its own. A payment that hangs
# before that shows as `WorkflowType = 'payment' AND PaymentStatus IS NULL`.
PAYMENT_STATUS = SearchAttributeKey.for_keyword("PaymentStatus")
# The step that waits for an operator, e.g. `network.reverse`; unset while nothing does.
NEEDS_ATTENTION = SearchAttributeKey.for_keyword("NeedsAttention")
IN_DOUBT_SINCE = SearchAttributeKey.for_datetime("InDoubtSince")
AMOUNT_AT_RISK_MINOR = SearchAttributeKey.for_int("AmountAtRiskMinor")
ACCOUNT_ID = SearchAttributeKey.for_keyword("AccountId")
DISPUTE_STATUS = SearchAttributeKey.for_keyword("DisputeStatus")
# When what a dispute waits for is due: the merchant's answer, then the network's decision. Unset once it is decided.
DISPUTE_DUE_BY = SearchAttributeKey.for_datetime("DisputeDueBy")
# `unknown` while, and after, nobody could get an answer about a card; what was answered at once never shows.
VERIFICATION_STATUS = SearchAttributeKey.for_keyword("VerificationStatus")
# How an onboarding or a closure stands. Of a reviewer's queue: `OnboardingStatus = 'in_review'`.
ONBOARDING_STATUS = SearchAttributeKey.for_keyword("OnboardingStatus")
CLOSURE_STATUS = SearchAttributeKey.for_keyword("ClosureStatus")

MICRO_DEPOSIT_STATUS = SearchAttributeKey.for_keyword("MicroDepositStatus")

# Name → type, as `temporal operator search-attribute create` and `start-dev --search-attribute` take them.
ALL: dict[str, str] = {
    PAYMENT_STATUS.name: "Keyword",
    NEEDS_ATTENTION.name: "Keyword",
    IN_DOUBT_SINCE.name: "Datetime",
    AMOUNT_AT_RISK_MINOR.name: "Int",
    ACCOUNT_ID.name: "Keyword",
    DISPUTE_STATUS.name: "Keyword",
    DISPUTE_DUE_BY.name: "Datetime",
    MICRO_DEPOSIT_STATUS.name: "Keyword",
    ONBOARDING_STATUS.name: "Keyword",
    CLOSURE_STATUS.name: "Keyword",
    VERIFICATION_STATUS.name: "Keyword",
}
