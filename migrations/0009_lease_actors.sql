-- Leases are looked up by who holds them: validators ask for their own.
CREATE INDEX leases_actor ON leases (actor, created_ms);
