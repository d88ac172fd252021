"""`python -m onboarding.lists.make`: prints the watch list that comes with the project. Its persons are invented.

A deployment points `DURAPAY_ONBOARDING_WATCH_LIST` at a list of its own, made of what OFAC, the EU and the UN publish.
"""

from __future__ import annotations

import random
import sys

_GIVEN = """
Aurelio Baltasar Casimir Dagobert Evander Fjodor Gratian Hyacinth Ismenia Jolanda Kallista Leokadia Melchior Nepomuk
Odilia Philemon Quirin Radomir Sidonia Theokrit Ursina Valerian Walpurga Xanthippe Yngvar Zdenka
"""
_FAMILY = """
Abendroth Bartolozzi Czerwinski Drakulovic Eisenhammer Fjellborg Grimaldescu Hohenzweig Ivanchikov Jaroslavsky
Kasparian Lindqvarnstroem Mordashkin Nyarlassen Obradovski Paskevicz Quastenberg Rasmolnikov Szentmiklosy Tarasenkov
Uljanitski Vandersmissen Wolkenstein Xenakidis Yavorskyi Zhuravlenko
"""
_PROGRAMMES = ("arms-embargo", "terrorism", "narcotics", "asset-freeze")
# The persons that examples and tests ask for.
_KNOWN = """
wl-0001,Grigori Verbotenko,Григорий Верботенко;Gregory Verbotenko,1961,asset-freeze
wl-0002,Jürgen Sperrmüller,,1958,arms-embargo
wl-0003,María del Carmen Bloqueada Ruíz,Carmen Bloqueada,,narcotics
"""
_SIZE = 300


def main() -> None:
    # Always the same list.
    chosen = random.Random("durapay watch list")
    known = _KNOWN.split("\n")[1:-1]
    lines = ["# version 2026-11-22", "id,name,aliases,birth_year,programme", *known]
    for number in range(len(known) + 1, _SIZE + 1):
        given, middle = chosen.choice(_GIVEN.split()), chosen.choice(_GIVEN.split())
        family = chosen.choice(_FAMILY.split())
        alias = f"{given} {family}" if chosen.random() < 0.5 else ""
        year = str(chosen.randrange(1935, 1990)) if chosen.random() < 0.8 else ""
        lines.append(f"wl-{number:04d},{given} {middle} {family},{alias},{year},{chosen.choice(_PROGRAMMES)}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
