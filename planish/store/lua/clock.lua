-- The ledger's time, ms since 1970.
return now_ms()
