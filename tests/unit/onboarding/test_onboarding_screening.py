"""Who is like somebody of the watch list is found however the name is written; a hit is never a decision."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from config.settings import OnboardingSettings
from domain.onboarding import CheckOutcome
from onboarding.errors import WatchListInvalid
from onboarding.provider import LocalProvider
from onboarding.watch_list import WatchList
from tests.support.persons import details

TODAY = date(2026, 11, 22)
SHIPPED = OnboardingSettings.model_fields["watch_list"].get_default()


@pytest.fixture(scope="module")
def watch_list() -> WatchList:
    return WatchList.load(SHIPPED)


@pytest.fixture(scope="module")
def provider(watch_list: WatchList) -> LocalProvider:
    return LocalProvider(watch_list)


@pytest.mark.parametrize(
    ("name", "year"),
    [
        ("Grigori Verbotenko", 1961),
        ("VERBOTENKO, Grigori", 1961),
        ("Grigory Verbotenko", 1962),
        ("Григорий Верботенко", 1961),
        ("grigorí verbotenko", 1961),
        # The very name is looked at whatever the year.
        ("Grigori Verbotenko", 1995),
    ],
)
def test_a_person_of_the_list_is_found_however_the_name_is_written(watch_list: WatchList, name: str, year: int) -> None:
    assert [hit.entry_id for hit in watch_list.hits(name, date(year, 1, 1))] == ["wl-0001"]


@pytest.mark.parametrize("name", ["Jürgen Sperrmüller", "Juergen Sperrmueller", "Jurgen Sperrmuller"])
def test_an_umlaut_hides_nobody(watch_list: WatchList, name: str) -> None:
    assert [hit.entry_id for hit in watch_list.hits(name, date(1958, 1, 1))] == ["wl-0002"]


def test_an_alias_counts_as_the_name_does(watch_list: WatchList) -> None:
    assert [hit.entry_id for hit in watch_list.hits("Carmen Bloqueada", date(1980, 1, 1))] == ["wl-0003"]


@pytest.mark.parametrize(
    ("name", "year"),
    [
        ("Ada Lovelace", 1990),
        ("Anna Maria Eriksson", 1974),
        # Like the name, but another generation.
        ("Grigory Verbotenko", 1995),
        ("Grigori Petrenko", 1961),
    ],
)
def test_who_is_somebody_else_is_left_alone(watch_list: WatchList, name: str, year: int) -> None:
    assert watch_list.hits(name, date(year, 1, 1)) == []


async def test_who_is_in_order_is_clear_and_the_list_is_named(provider: LocalProvider) -> None:
    checked = await provider.check(details(), TODAY)
    assert (checked.outcome, checked.reasons, checked.list_version) == (CheckOutcome.CLEAR, (), "2026-11-22")


async def test_a_hit_is_referred_with_its_entry_and_score_and_no_name(provider: LocalProvider) -> None:
    checked = await provider.check(details("Grigory Verbotenko", born_on=date(1961, 1, 1), expires_on=None), TODAY)
    assert (checked.outcome, checked.reasons) == (CheckOutcome.REFER, ("watch_list:wl-0001:94",))


async def test_a_document_in_another_name_is_looked_at(provider: LocalProvider) -> None:
    checked = await provider.check(details("Ada Lovelace"), TODAY)
    assert (checked.outcome, checked.reasons) == (CheckOutcome.REFER, ("name_differs_from_document",))


async def test_a_name_that_cannot_be_compared_is_looked_at(provider: LocalProvider) -> None:
    """Held against nothing, it is not clear."""
    checked = await provider.check(details("王伟", expires_on=None), TODAY)
    assert (checked.outcome, checked.reasons) == (CheckOutcome.REFER, ("name_not_comparable",))


async def test_what_is_wrong_by_itself_fails_whatever_the_name(provider: LocalProvider) -> None:
    """It was in order when it came; a case that is looked at years later may be no more."""
    late = await provider.check(details("Grigori Verbotenko", born_on=date(1961, 1, 1)), date(2031, 4, 16))
    assert (late.outcome, late.reasons) == (CheckOutcome.FAIL, ("document_expired",))
    young = replace(details(expires_on=None), date_of_birth=date(2015, 1, 1))
    assert (await provider.check(young, TODAY)).reasons == ("underage",)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("", 1),
        ("id,name,aliases,birth_year,programme\n", 1),
        ("# version \nid,name,aliases,birth_year,programme\n", 1),
        ("# version 1\nid,name\n", 2),
        ("# version 1\nid,name,aliases,birth_year,programme\nwl-1,Ada,,1990\n", 3),
        ("# version 1\nid,name,aliases,birth_year,programme\nwl-1,Ada,,soon,x\n", 3),
        ("# version 1\nid,name,aliases,birth_year,programme\nwl-1,王伟,,1990,x\n", 3),
        ("# version 1\nid,name,aliases,birth_year,programme\nwl-1,A,,,x\nwl-1,B,,,x\n", 4),
    ],
)
def test_what_is_no_list_stops_the_worker_at_its_start(tmp_path: Path, content: str, line: int) -> None:
    file = tmp_path / "list.csv"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(WatchListInvalid) as refusal:
        WatchList.load(file)
    assert refusal.value.line == line
