-- Who this database is, for what is left on hosts (labels of containers): one row, written once.
CREATE TABLE identity (
    one        BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    id         TEXT   NOT NULL,
    created_ms BIGINT NOT NULL
);

-- Holds of hosts and their GPUs: one row for each, never removed. A row without `released_ms` is
-- live, whatever `expires_ms` says: only who has seen that nothing runs under it any more may end it.
CREATE TABLE leases (
    id           TEXT   NOT NULL PRIMARY KEY,
    host         TEXT   NOT NULL,
    -- container, verify or grant
    kind         TEXT   NOT NULL,
    actor        TEXT   NOT NULL,
    pid          BIGINT NOT NULL,
    -- What the lease is for once that exists: the id of a container, of a challenge, of a grant.
    subject      TEXT,
    created_ms   BIGINT NOT NULL,
    -- When the holder must have renewed it, or the deadline of what runs; NULL is no deadline.
    expires_ms   BIGINT,
    released_ms  BIGINT,
    released_why TEXT
);
CREATE INDEX leases_live ON leases (host) WHERE released_ms IS NULL;

-- The GPUs of each lease, by UUID.
CREATE TABLE lease_gpus (
    lease       TEXT   NOT NULL REFERENCES leases (id),
    host        TEXT   NOT NULL,
    gpu         TEXT   NOT NULL,
    released_ms BIGINT,
    PRIMARY KEY (lease, gpu)
);
-- What makes two holders of one GPU impossible, whoever asks from wherever.
CREATE UNIQUE INDEX lease_gpus_live ON lease_gpus (host, gpu) WHERE released_ms IS NULL;
