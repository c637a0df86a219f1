-- What the axon must not accept a second time. A nonce is a time in nanoseconds since the Unix epoch.
-- Rows go when they are older than any request that could still be fresh.

-- Legacy requests: the newest nonce of each endpoint. `endpoint` is a digest of the axon's hotkey, the
-- caller's hotkey and the caller's uuid.
CREATE TABLE axon_endpoints (
    endpoint TEXT   NOT NULL PRIMARY KEY,
    nonce    BIGINT NOT NULL
);

-- btauth requests: every nonce. `caller` is a digest of the axon's hotkey and the caller's hotkey.
CREATE TABLE axon_nonces (
    caller TEXT   NOT NULL,
    nonce  BIGINT NOT NULL,
    -- By time first: new rows come at the end, and old ones go from the beginning.
    PRIMARY KEY (nonce, caller)
);

-- One row: nothing up to `floor` is accepted, whatever the clock says; `boot` is the boot of the
-- machine that wrote last, since what a power cut took away can only be missing after another boot.
CREATE TABLE axon_replay (
    id    BIGINT NOT NULL PRIMARY KEY,
    boot  TEXT   NOT NULL,
    floor BIGINT NOT NULL
);
