"""Whatever is sent to a documented operation is answered as its document says, and never by a fault of the server."""

from __future__ import annotations

import os
from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.specs.openapi.checks import missing_required_header, positive_data_acceptance

from tests.support.openapi import DOCUMENT
from tests.support.platform import Access
from tests.support.shop import Shop

# By hand more are tried: FUZZ_EXAMPLES=500.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "12"))

SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)

# A schema cannot say that a card has expired or a check digit is wrong, and it takes 10.0 for an integer, which no
# amount is. And whoever asks for what is not there may hear so before anything of a missing header.
BEYOND_THE_SCHEMA: list[Any] = [positive_data_acceptance, missing_required_header]


@SCHEMA.parametrize()
@settings(max_examples=EXAMPLES, derandomize=True, suppress_health_check=list(HealthCheck))
def test_an_operation_answers_as_its_document_says(case: Case[Any], platform: Access, operator: Shop) -> None:
    """An operator may ask for everything."""
    headers = {"Authorization": f"Bearer {operator.key}"}
    case.call_and_validate(base_url=platform.api, headers=headers, timeout=20, excluded_checks=BEYOND_THE_SCHEMA)
