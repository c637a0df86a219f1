-- Times are milliseconds since the Unix epoch, UTC. JSON columns are TEXT, so that the same
-- statements run on every database that is supported.

CREATE TABLE hosts (
    name           TEXT   NOT NULL PRIMARY KEY,
    -- The declaration at the last deploy: how later commands reach the host without the fleet file.
    spec_json      TEXT   NOT NULL,
    state          TEXT   NOT NULL,
    state_since_ms BIGINT NOT NULL,
    first_seen_ms  BIGINT NOT NULL,
    last_seen_ms   BIGINT,
    runner_sha256  TEXT,
    runner_version TEXT,
    last_reason    TEXT,
    last_message   TEXT,
    drain_note     TEXT,
    purged_ms      BIGINT
);

-- Host keys that we trust, one row for each decision. A replaced key keeps its row: the
-- history of who trusted what, and when, is never overwritten.
CREATE TABLE host_keys (
    id          TEXT   NOT NULL PRIMARY KEY,
    address     TEXT   NOT NULL,
    port        BIGINT NOT NULL,
    algorithm   TEXT   NOT NULL,
    fingerprint TEXT   NOT NULL,
    public_key  TEXT   NOT NULL,
    trusted_ms  BIGINT NOT NULL,
    trusted_by  TEXT   NOT NULL,
    replaced_ms BIGINT
);
CREATE INDEX host_keys_by_address ON host_keys (address, port);
-- Two operators who meet the same new host at the same moment leave one live row.
CREATE UNIQUE INDEX host_keys_live ON host_keys (address, port, algorithm) WHERE replaced_ms IS NULL;

-- What was found on a host, one row for each finding, never overwritten.
CREATE TABLE facts (
    id         TEXT   NOT NULL PRIMARY KEY,
    host       TEXT   NOT NULL,
    taken_ms   BIGINT NOT NULL,
    facts_json TEXT   NOT NULL
);
CREATE INDEX facts_by_host ON facts (host, taken_ms);

-- The audit chain: each row's hash covers its content and the hash before it.
CREATE TABLE events (
    seq         BIGINT NOT NULL PRIMARY KEY,
    at_ms       BIGINT NOT NULL,
    actor       TEXT   NOT NULL,
    kind        TEXT   NOT NULL,
    host        TEXT,
    detail_json TEXT   NOT NULL,
    prev_hash   TEXT   NOT NULL,
    hash        TEXT   NOT NULL
);
