"""Payments with devices, addresses and places: genuine habits and five kinds of fraud, from one seed.

Everything is invented. Genuine payers have homes, favourite merchants, hours, trips, sprees, new telephones and new
cards, share addresses with their household or their mobile carrier, and many pay just once as guests; merchants pass on
all, some or none of the signals. Fraud is made to overlap with them: testers pace themselves and change devices, taken
accounts are used near home, cloned cards within a plausible flight.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from fraud.events import PaymentEvent, Place
from fraud.windows import DAY_MS, HOUR_MS, MINUTE_MS

SEED = 20261101
DAYS = 100
START_MS = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000)

_USERS = 1100
_GUESTS_A_DAY = 110
_MERCHANTS = 320

_CITIES = (
    Place(40.71, -74.01), Place(34.05, -118.24), Place(41.88, -87.63), Place(29.76, -95.37), Place(33.45, -112.07),
    Place(47.61, -122.33), Place(25.76, -80.19), Place(39.74, -104.99), Place(42.36, -71.06), Place(51.51, -0.13),
    Place(52.52, 13.40), Place(48.86, 2.35), Place(40.42, -3.70), Place(-33.87, 151.21), Place(35.68, 139.69),
    Place(19.08, 72.88), Place(-23.55, -46.63), Place(6.52, 3.38),
)  # fmt: skip

# Merchant category code, median amount in dollars, spread (sigma of the logarithm), share of payments, remote share.
_CATEGORIES = (
    (5411, 45, 0.6, 22, 0.1), (5812, 28, 0.6, 14, 0.0), (5814, 11, 0.4, 12, 0.1), (5541, 46, 0.35, 8, 0.0),
    (5999, 35, 0.9, 6, 0.7), (5311, 70, 0.8, 7, 0.5), (5732, 170, 0.9, 3, 0.5), (5944, 200, 0.8, 1, 0.3),
    (4511, 340, 0.6, 1.5, 0.9), (7011, 240, 0.6, 2, 0.6), (4111, 3.5, 0.3, 9, 0.0), (5815, 8, 0.7, 7, 1.0),
    (5912, 22, 0.6, 5, 0.1), (6051, 110, 0.8, 0.7, 1.0), (7995, 45, 0.9, 0.8, 1.0), (4121, 18, 0.5, 5, 0.6),
)  # fmt: skip
_CASHED_OUT = (5732, 5944, 5311, 6051, 4511)


@dataclass(frozen=True, slots=True)
class Labelled:
    """`scenario` is for diagnosis only: never a feature, never a filter."""

    event: PaymentEvent
    fraud: bool
    scenario: str


@dataclass(slots=True)
class _Merchant:
    name: str
    category: int
    median: float
    sigma: float
    city: int | None
    signals: str


@dataclass(slots=True)
class _Payer:
    name: str
    city: int
    home: Place
    cards: list[str]
    devices: list[str]
    household: str
    scale: float
    rate: float
    night_owl: bool
    first_day: int
    favourites: list[_Merchant] = field(default_factory=list)
    away: tuple[int, int] | None = None  # (city, last day)


def generate(seed: int = SEED, days: int = DAYS, users: int = _USERS) -> list[Labelled]:
    """All payments of `days` days in order of time; the same seed gives the same payments."""
    world = _World(random.Random(seed), users)
    for day in range(days):
        world.live(day)
    return sorted(world.payments, key=lambda payment: (payment.event.at_ms, payment.event.payment))


def digest(payments: Iterable[Labelled]) -> str:
    """SHA-256 over all payments and labels."""
    content = hashlib.sha256()
    for payment in payments:
        content.update(repr(payment).encode())
    return content.hexdigest()


class _World:
    def __init__(self, rng: random.Random, users: int) -> None:
        self._rng = rng
        self._serial = 0
        self._day = 0
        self.payments: list[Labelled] = []
        self._merchants = [self._merchant() for _ in range(_MERCHANTS)]
        self._cash_out = [merchant for merchant in self._merchants if merchant.category in _CASHED_OUT]
        self._remote = [merchant for merchant in self._merchants if merchant.city is None]
        self._payers = [self._payer() for _ in range(users)]
        self._carriers = [[self._name("ip") for _ in range(6)] for _ in _CITIES]
        self._active: list[_Payer] = []

    def live(self, day: int) -> None:
        self._day = day
        self._active = [payer for payer in self._payers if payer.first_day <= day]
        for payer in self._active:
            self._genuine_day(payer)
        for _ in range(_GUESTS_A_DAY):
            self._guest()
        if day >= 3:
            self._crime()

    # Genuine payments

    def _genuine_day(self, payer: _Payer) -> None:
        rng = self._rng
        if payer.away and payer.away[1] < self._day:
            payer.away = None
            return  # flying home
        if payer.away is None and rng.random() < 1 / 50:
            payer.away = (rng.randrange(len(_CITIES)), self._day + rng.randint(2, 7))
            return  # flying out
        if rng.random() < 1 / 150:
            payer.devices.append(self._name("d"))
        if rng.random() < 1 / 150:
            payer.cards.append(self._name("c"))
        for _ in range(self._poisson(payer.rate)):
            self._habit(payer, self._moment(payer))
        if rng.random() < 0.006:
            self._spree(payer)

    def _habit(self, payer: _Payer, at_ms: int) -> None:
        rng = self._rng
        city = payer.away[0] if payer.away else payer.city
        known = [merchant for merchant in payer.favourites if merchant.city in (None, city)]
        if rng.random() < 0.75 and known:
            merchant = rng.choice(known)
        else:
            merchant = rng.choice([merchant for merchant in self._merchants if merchant.city in (None, city)])
        scale = payer.scale * (rng.uniform(4, 14) if rng.random() < 0.006 else 1)
        self._pay(payer, merchant, self._amount(merchant) * scale, at_ms)
        if merchant.median < 10 and rng.random() < 0.04:
            # Vending machines, fares for a group, top-ups in a game.
            for _ in range(rng.randint(2, 4)):
                at_ms += rng.randint(20, 150) * 1000
                self._pay(payer, merchant, self._amount(merchant), at_ms)

    def _spree(self, payer: _Payer) -> None:
        at_ms = self._moment(payer)
        for _ in range(self._rng.randint(4, 9)):
            at_ms += self._rng.randint(2, 35) * MINUTE_MS
            merchant = self._rng.choice(payer.favourites if self._rng.random() < 0.4 else self._merchants)
            if merchant.city in (None, payer.away[0] if payer.away else payer.city):
                self._pay(payer, merchant, self._amount(merchant) * payer.scale * 1.8, at_ms)

    def _guest(self) -> None:
        """Somebody new, with a card never seen before: most pay once, some a few times within the hour."""
        rng = self._rng
        payer = self._payer()
        payer.favourites = [merchant for merchant in self._merchants if merchant.city in (None, payer.city)]
        at_ms = self._moment(payer) if rng.random() < 0.4 else self._any_moment()
        merchant = rng.choice(payer.favourites)
        for _ in range(rng.choices((1, 2, 3, 6), (80, 10, 6, 4))[0]):
            amount = math.exp(rng.gauss(math.log(50), 1.1))
            self._pay(payer, merchant, min(amount, 4000), at_ms)
            at_ms += int(math.exp(rng.gauss(math.log(5), 1.5)) * MINUTE_MS)
            merchant = merchant if rng.random() < 0.5 else rng.choice(payer.favourites)

    # Fraud

    def _crime(self) -> None:
        for often, crime in (
            (0.4, self._card_testing),
            (0.6, self._account_takeover),
            (0.5, self._cloned_card),
            (0.3, self._bust_out),
            (0.9, self._stolen_cards),
        ):
            for _ in range(self._poisson(often)):
                crime()

    def _card_testing(self) -> None:
        """Many stolen cards are tried in small amounts; some testers pace themselves and change device or address."""
        rng = self._rng
        devices = [self._name("d") for _ in range(rng.choice((1, 1, 2, 5)))]
        addresses = [self._name("ip") for _ in range(rng.choice((1, 1, 2, 4)))]
        merchants = rng.sample(self._remote, rng.randint(1, 2))
        pause, limit = rng.choice(((8, 2), (30, 5), (120, 8), (600, 20)))
        at_ms, user = self._any_moment(), self._name("u")
        claimed = self._near(rng.choice(_CITIES), 0.3) if rng.random() < 0.5 else None
        for _ in range(rng.randint(8, 35)):
            at_ms += int(rng.uniform(0.4, 1.6) * pause * 1000)
            stolen = rng.choice(self._active).cards[0] if rng.random() < 0.2 else self._name("c")
            tester = self._criminal(user, stolen, rng.choice(devices), rng.choice(addresses))
            self._pay(tester, rng.choice(merchants), rng.uniform(0.5, limit), at_ms, "card_testing", place=claimed)
            if rng.random() < 0.06:
                later = at_ms + rng.randint(2, 60) * MINUTE_MS
                self._pay(
                    tester, rng.choice(self._cash_out), rng.uniform(150, 900), later, "card_testing", place=claimed
                )

    def _account_takeover(self) -> None:
        """The payer's own account and card, from another device and address, often near home."""
        rng = self._rng
        victim = rng.choice(self._active)
        thief = replace(victim, devices=[self._name("d")], household=self._name("ip"), away=None)
        place = self._near(victim.home, rng.choice((0.2, 2.0)))
        at_ms = self._any_moment()
        for _ in range(rng.randint(2, 6)):
            at_ms += rng.randint(3, 45) * MINUTE_MS
            amount = rng.uniform(2, 9) * 60 * victim.scale
            self._pay(thief, rng.choice(self._cash_out), amount, at_ms, "account_takeover", place=place)

    def _cloned_card(self) -> None:
        """The card is used far from its holder; at times just within the reach of a flight."""
        rng = self._rng
        victim = rng.choice(self._active)
        city = rng.randrange(len(_CITIES))
        if city == victim.city:
            return
        thief = replace(victim, city=city, away=None, devices=[self._name("d")], household=self._name("ip"))
        at_ms = self._any_moment()
        for _ in range(rng.randint(1, 5)):
            at_ms += rng.randint(5, 90) * MINUTE_MS
            merchant = rng.choice([merchant for merchant in self._merchants if merchant.city in (None, city)])
            amount = self._amount(merchant) * rng.uniform(1, 4)
            self._pay(thief, merchant, amount, at_ms, "cloned_card", place=self._near(_CITIES[city], 0.3))

    def _bust_out(self) -> None:
        """An account that behaved for a while is emptied in a day or two, from its own device."""
        rng = self._rng
        known = [payer for payer in self._active if self._day - payer.first_day > 10]
        if not known:
            return
        payer = rng.choice(known)
        at_ms = self._moment(payer)
        for _ in range(rng.randint(5, 14)):
            at_ms += rng.randint(8, 240) * MINUTE_MS
            self._pay(payer, rng.choice(self._cash_out), rng.uniform(200, 1400), at_ms, "bust_out")

    def _stolen_cards(self) -> None:
        """A new account spends one to four stolen cards on what sells again."""
        rng = self._rng
        device, address, user = self._name("d"), self._name("ip"), self._name("u")
        place = self._near(_CITIES[rng.randrange(len(_CITIES))], 0.3)
        at_ms = self._any_moment()
        for _ in range(rng.randint(1, 4)):
            thief = self._criminal(user, self._name("c"), device, address)
            for _ in range(rng.randint(1, 3)):
                at_ms += rng.randint(1, 30) * MINUTE_MS
                amount = min(math.exp(rng.gauss(math.log(450), 0.6)), 5000)
                self._pay(thief, rng.choice(self._cash_out), amount, at_ms, "stolen_cards", place=place)

    # Parts

    def _pay(
        self,
        payer: _Payer,
        merchant: _Merchant,
        dollars: float,
        at_ms: int,
        scenario: str = "genuine",
        place: Place | str | None = "own",
    ) -> None:
        rng = self._rng
        city = payer.away[0] if payer.away else payer.city
        if place == "own":
            place = self._near(_CITIES[city] if payer.away else payer.home, 0.08)
        signals = merchant.signals
        mobile = merchant.city is not None or rng.random() < 0.4
        self._serial += 1
        self.payments.append(
            Labelled(
                PaymentEvent(
                    payment=f"p{self._serial:07d}",
                    card=payer.cards[0] if rng.random() < 0.75 else payer.cards[-1],
                    user=payer.name,
                    merchant=merchant.name,
                    category=merchant.category,
                    cents=max(50, round(dollars * 100)),
                    at_ms=at_ms,
                    device=None if signals == "none" else payer.devices[-1],
                    ip=None if signals == "none" else self._address(payer, city, mobile, scenario),
                    place=place if signals == "all" and isinstance(place, Place) else None,
                ),
                scenario != "genuine",
                scenario,
            )
        )

    def _address(self, payer: _Payer, city: int, mobile: bool, scenario: str) -> str:
        own = scenario in ("genuine", "bust_out")
        if ((mobile or payer.away) and own) or self._rng.random() < 0.15:
            return self._rng.choice(self._carriers[city])
        return payer.household

    def _merchant(self) -> _Merchant:
        rng = self._rng
        category, median, sigma, _, remote = rng.choices(_CATEGORIES, [row[3] + 2 for row in _CATEGORIES])[0]
        city = None if rng.random() < remote else rng.randrange(len(_CITIES))
        signals = rng.choices(("all", "device", "none"), (60, 20, 20))[0]
        return _Merchant(self._name("m"), category, median * rng.uniform(0.7, 1.4), sigma, city, signals)

    def _payer(self) -> _Payer:
        rng = self._rng
        city = rng.randrange(len(_CITIES))
        local = [merchant for merchant in self._merchants if merchant.city in (None, city)]
        return _Payer(
            name=self._name("u"),
            city=city,
            home=self._near(_CITIES[city], 0.15),
            cards=[self._name("c") for _ in range(rng.choice((1, 1, 1, 2)))],
            devices=[self._name("d")],
            household=self._name("ip"),
            scale=math.exp(rng.gauss(0, 0.4)),
            rate=min(4.0, math.exp(rng.gauss(-0.2, 0.7))),
            night_owl=rng.random() < 0.08,
            first_day=0 if rng.random() < 0.6 else rng.randrange(DAYS),
            favourites=rng.sample(local, min(12, len(local))),
        )

    def _criminal(self, user: str, card: str, device: str, address: str) -> _Payer:
        return _Payer(user, self._rng.randrange(len(_CITIES)), _CITIES[0], [card], [device], address, 1, 0, False, 0)

    def _moment(self, payer: _Payer) -> int:
        """A time of this day in the payer's waking hours, by the sun of where they are."""
        peak = 22.0 if payer.night_owl else 14.5
        hour = self._rng.gauss(peak, 4.0) - _CITIES[payer.away[0] if payer.away else payer.city].longitude / 15
        return START_MS + self._day * DAY_MS + int(max(-6.0, hour) * HOUR_MS) % (2 * DAY_MS)

    def _any_moment(self) -> int:
        return START_MS + self._day * DAY_MS + self._rng.randrange(DAY_MS)

    def _amount(self, merchant: _Merchant) -> float:
        return math.exp(self._rng.gauss(math.log(merchant.median), merchant.sigma))

    def _near(self, place: Place, degrees: float) -> Place:
        rng = self._rng
        return Place(
            round(place.latitude + rng.gauss(0, degrees), 4),
            round((place.longitude + rng.gauss(0, degrees) + 180) % 360 - 180, 4),
        )

    def _poisson(self, mean: float) -> int:
        """Knuth's method; the means here are small."""
        limit, count, product = math.exp(-mean), 0, self._rng.random()
        while product > limit:
            count += 1
            product *= self._rng.random()
        return count

    def _name(self, prefix: str) -> str:
        self._serial += 1
        return f"{prefix}{self._serial}"
