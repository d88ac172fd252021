"""Named timeouts and retry policies. `start_to_close` bounds one attempt, `schedule_to_close` is the budget.

When a budget is spent the workflow does not give up: see `workflows/steps.py`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TypedDict

from temporalio.common import RetryPolicy

from temporal.task_queues import TaskQueue


class LocalOptions(TypedDict):
    start_to_close_timeout: timedelta
    schedule_to_close_timeout: timedelta
    retry_policy: RetryPolicy


class CallOptions(LocalOptions):
    task_queue: str


class WatchedOptions(CallOptions):
    """`heartbeat_timeout` is how long a worker may be silent before it counts as dead (`workers/heartbeats.py`)."""

    heartbeat_timeout: timedelta


_NETWORK_WORKER_SILENT = timedelta(seconds=4)
# Nobody waits for the bank as a payer waits for the network, but a removal does, and whoever looks at a doubt.
_BANK_WORKER_SILENT = timedelta(seconds=4)


# Milliseconds in our own trust zone, idempotent. The default first back-off of a second would turn one lost
# connection into a second of waiting.
LOCAL_STEP = LocalOptions(
    start_to_close_timeout=timedelta(seconds=5),
    schedule_to_close_timeout=timedelta(seconds=15),
    retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=10), maximum_interval=timedelta(seconds=1)),
)

# The payer waits: past this the payment is declined, because nothing has been sent yet.
VAULT_CALL = CallOptions(
    task_queue=TaskQueue.VAULT,
    start_to_close_timeout=timedelta(seconds=5),
    schedule_to_close_timeout=timedelta(seconds=20),
    retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=100), maximum_interval=timedelta(seconds=2)),
)

# Sensitive authentication data waits five minutes for the network worker (`vault/transit.py`); this leaves it one.
CREDENTIAL_LIFETIME = timedelta(minutes=4)

# The adapter itself waits ten seconds for the host's answer and then says `Unknown`; five more are for a slow worker.
NETWORK_CALL = WatchedOptions(
    task_queue=TaskQueue.NETWORK,
    start_to_close_timeout=timedelta(seconds=15),
    heartbeat_timeout=_NETWORK_WORKER_SILENT,
    schedule_to_close_timeout=timedelta(seconds=40),
    retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=5)),
)

# The direct line waits a second itself (`activities/direct.py`). Asked once: what it cannot say, `NETWORK_CALL` does.
DIRECT_CALL = LocalOptions(
    start_to_close_timeout=timedelta(seconds=2),
    schedule_to_close_timeout=timedelta(seconds=3),
    retry_policy=RetryPolicy(maximum_attempts=1),
)

# Advices and reversals must arrive, and repeating them is safe: hours of back-off before anybody is called.
NETWORK_ADVICE = WatchedOptions(
    task_queue=TaskQueue.NETWORK,
    start_to_close_timeout=timedelta(seconds=15),
    heartbeat_timeout=_NETWORK_WORKER_SILENT,
    schedule_to_close_timeout=timedelta(hours=4),
    retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=5)),
)

# Up to ten files of five megabytes are read and digested; an outage of S3 heals within minutes, or somebody must look.
DOCUMENT_CALL = CallOptions(
    task_queue=TaskQueue.PAYMENTS,
    start_to_close_timeout=timedelta(minutes=2),
    schedule_to_close_timeout=timedelta(minutes=15),
    retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=1)),
)

# A page of a day's settlement; the network may close its day hours after ours has ended.
SETTLEMENT_STAGE = CallOptions(
    task_queue=TaskQueue.SETTLEMENT,
    start_to_close_timeout=timedelta(minutes=5),
    schedule_to_close_timeout=timedelta(hours=12),
    retry_policy=RetryPolicy(initial_interval=timedelta(seconds=2), maximum_interval=timedelta(minutes=5)),
)

# Asked whether a break has healed, one try is enough: the step itself tries again later.
BREAK_CHECK = CallOptions(
    task_queue=TaskQueue.SETTLEMENT,
    start_to_close_timeout=timedelta(seconds=30),
    schedule_to_close_timeout=timedelta(minutes=5),
    retry_policy=RetryPolicy(maximum_attempts=1),
)

# It reads the whole ledger, and it is asked again by the workflow itself: one try each time.
CONSISTENCY_CHECK = CallOptions(
    task_queue=TaskQueue.SETTLEMENT,
    start_to_close_timeout=timedelta(minutes=10),
    schedule_to_close_timeout=timedelta(minutes=30),
    retry_policy=RetryPolicy(maximum_attempts=1),
)

# One statement for each card that expires soon; it is asked again tomorrow in any case.
REMINDERS = CallOptions(
    task_queue=TaskQueue.PAYMENTS,
    start_to_close_timeout=timedelta(minutes=5),
    schedule_to_close_timeout=timedelta(hours=1),
    retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=1)),
)

# A question about a card that got no answer is asked anew after these. No more than that: issuers count them, and card
# schemes charge for them.
VERIFICATION_PAUSES = (timedelta(seconds=2), timedelta(seconds=10))

# Rows and files of a person; nobody waits for most of it, and an outage heals within minutes, or somebody must look.
ONBOARDING_CALL = CallOptions(
    task_queue=TaskQueue.ONBOARDING,
    start_to_close_timeout=timedelta(seconds=60),
    schedule_to_close_timeout=timedelta(minutes=15),
    retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(minutes=1)),
)

# The person's key is lent for five minutes (`vault/personal_keys.py`): past that the step asks for it again.
IDENTITY_CHECK = CallOptions(
    task_queue=TaskQueue.ONBOARDING,
    start_to_close_timeout=timedelta(seconds=30),
    schedule_to_close_timeout=timedelta(minutes=4),
    retry_policy=RetryPolicy(maximum_attempts=1),
)

# What is done with a person's key is no payer's wait.
PERSONAL_KEY_CALL = CallOptions(
    task_queue=TaskQueue.VAULT,
    start_to_close_timeout=timedelta(seconds=15),
    schedule_to_close_timeout=timedelta(minutes=15),
    retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(minutes=1)),
)

# How often a closure looks whether the money that it waits for is settled.
OBSTACLE_INTERVAL = timedelta(hours=1)

# A row or two in the bank zone's tables.
BANK_CALL = CallOptions(
    task_queue=TaskQueue.BANK,
    start_to_close_timeout=timedelta(seconds=10),
    schedule_to_close_timeout=timedelta(minutes=2),
    retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=10)),
)

# A file goes out, or is asked for. Nobody waits for it, and a bank that is closed opens again within hours.
BANK_ORIGINATION = WatchedOptions(
    task_queue=TaskQueue.BANK,
    start_to_close_timeout=timedelta(seconds=60),
    heartbeat_timeout=_BANK_WORKER_SILENT,
    schedule_to_close_timeout=timedelta(hours=4),
    retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=5)),
)

# It asks the bank for every file that is not posted yet; the next one is due in an hour.
BANK_POLL = CallOptions(
    task_queue=TaskQueue.BANK,
    start_to_close_timeout=timedelta(minutes=10),
    schedule_to_close_timeout=timedelta(hours=2),
    retry_policy=RetryPolicy(initial_interval=timedelta(seconds=5), maximum_interval=timedelta(minutes=5)),
)

# Visa holds a cardholder-initiated authorization for 7 days.
CAPTURE_WINDOW = timedelta(days=7)
# Visa and Mastercard take refunds later than this only with questions; chargeback rights end at about 120 days.
REFUND_WINDOW = timedelta(days=180)
STEP_UP_WINDOW = timedelta(minutes=10)
STEP_UP_ATTEMPTS = 3

# A one-time code that comes after the window it is for would only alarm its reader.
STEP_UP_NOTIFICATION = CallOptions(
    task_queue=TaskQueue.NOTIFY,
    start_to_close_timeout=timedelta(seconds=60),
    schedule_to_close_timeout=STEP_UP_WINDOW,
    retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=30)),
)
REVIEW_WINDOW = timedelta(hours=24)
# How long the caller of a refund waits for the network's answer before it is told `pending`.
REFUND_ANSWER_WAIT = timedelta(seconds=8)

# A parked step tries again by itself, ever more seldom, so that healing needs no operator for each payment.
FIRST_SELF_RETRY = timedelta(seconds=15)
LONGEST_SELF_RETRY = timedelta(hours=1)
