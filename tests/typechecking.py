"""How annotations are checked while the tests run: a whole number may stand where a float is expected (PEP 484)."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
