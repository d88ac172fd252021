"""A bank that takes ACH files, for development and tests: a program of its own with a journal of its own.

`python -m bank.simulator` serves it over HTTP. A file is taken once per id and digest, whole or not at all; its entries
are posted on their banking day, and come back by the number of the account or because somebody asked for it. Its clock
can be put forward, so that a banking day need not be waited for.

| account number | what happens |
|---|---|
| `1099000001` … `1099000085` | returned as R01 … R85 on the banking day after it was posted (R01: only debits) |
| `1099100001` … `1099100085` | the same, five banking days after it was posted |
| `1099200001` … `1099200014` | posted, with a notification of change C01 … C14 |
| any other | posted |
"""
