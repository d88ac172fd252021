"""A process is told what its trust zone may know, and nothing else."""

from __future__ import annotations

import pytest

from embedded.zones import Zone, environment, variables


def test_only_vault_api_and_ceremony_know_the_pin_of_the_hsm() -> None:
    assert {zone for zone in Zone if "DURAPAY_HSM_PIN" in variables(zone)} == {Zone.VAULT, Zone.API, Zone.TOKEN_SETUP}


def test_only_the_network_worker_can_open_a_credential() -> None:
    assert {zone for zone in Zone if "DURAPAY_UNSEALING_PRIVATE_KEY" in variables(zone)} == {Zone.NETWORK}


def test_only_the_ceremony_knows_the_security_officers_pin() -> None:
    assert {zone for zone in Zone if "DURAPAY_CEREMONY_SO_PIN" in variables(zone)} == {Zone.TOKEN_SETUP}


def test_only_the_api_can_sign_sessions() -> None:
    assert {zone for zone in Zone if "DURAPAY_IDENTITY_SECRET" in variables(zone)} == {Zone.API}


def test_only_api_payments_and_onboarding_workers_reach_the_documents() -> None:
    assert {zone for zone in Zone if "DURAPAY_DOCUMENTS_SECRET_ACCESS_KEY" in variables(zone)} == {
        Zone.API,
        Zone.PAYMENTS,
        Zone.ONBOARDING,
        Zone.DOCUMENT_SETUP,
    }


def test_only_the_onboarding_worker_opens_the_keys_of_persons_that_the_vault_lends() -> None:
    assert {zone for zone in Zone if "DURAPAY_ONBOARDING_PRIVATE_KEY" in variables(zone)} == {Zone.ONBOARDING}
    assert "DURAPAY_HSM_PIN" not in variables(Zone.ONBOARDING)


def test_only_the_bank_worker_opens_account_numbers() -> None:
    assert {zone for zone in Zone if "DURAPAY_BANK_PRIVATE_KEY" in variables(zone)} == {Zone.BANK}
    assert {zone for zone in Zone if "DURAPAY_BANK_SEALING_PUBLIC_KEY" in variables(zone)} == {Zone.VAULT}
    assert "DURAPAY_HSM_PIN" not in variables(Zone.BANK)


def test_only_the_vault_worker_reads_what_banks_correct_of_an_account() -> None:
    assert {zone for zone in Zone if "DURAPAY_CORRECTION_PRIVATE_KEY" in variables(zone)} == {Zone.VAULT}
    assert {zone for zone in Zone if "DURAPAY_CORRECTION_SEALING_PUBLIC_KEY" in variables(zone)} == {Zone.BANK}


def test_the_simulated_bank_shares_nothing_with_the_platform() -> None:
    for zone in set(Zone) - {Zone.BANK_SIMULATOR}:
        assert not variables(zone) & variables(Zone.BANK_SIMULATOR)


def test_the_simulated_network_shares_nothing_with_the_platform() -> None:
    for zone in set(Zone) - {Zone.SIMULATOR}:
        assert not variables(zone) & variables(Zone.SIMULATOR)


@pytest.mark.parametrize("zone", Zone)
def test_a_zones_environment_holds_its_own_variables_alone(zone: Zone) -> None:
    everything = {name: "value" for other in Zone for name in variables(other)}
    assert set(environment(zone, everything)) == variables(zone)
