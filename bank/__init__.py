"""The bank (ODFI): NACHA files, the banking calendar, bank accounts, micro-deposits and the simulated bank."""
