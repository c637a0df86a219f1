-- SSH grants to validators: a time-bounded key on a host. A row is never removed.
CREATE TABLE grants (
    id           TEXT   NOT NULL PRIMARY KEY,
    host         TEXT   NOT NULL,
    validator    TEXT   NOT NULL,
    -- Type and base64 of the public key, without a comment.
    public_key   TEXT   NOT NULL,
    fingerprint  TEXT   NOT NULL,
    from_address TEXT   NOT NULL,
    -- The file on the host that the line went into.
    keys_file    TEXT   NOT NULL,
    issued_ms    BIGINT NOT NULL,
    issued_by    TEXT   NOT NULL,
    expires_ms   BIGINT NOT NULL,
    -- pending: about to be written; placed: in the file; ended: revoked, and to be taken out of the
    -- file; gone: it is not in the file any more, or never was.
    state        TEXT   NOT NULL,
    ended_ms     BIGINT,
    -- revoked, expired, failed or lost.
    end_reason   TEXT
);
CREATE INDEX grants_by_host ON grants (host, state);
CREATE INDEX grants_by_validator ON grants (validator, issued_ms);

-- Which process serves this database. One row; a holder that does not renew it loses it.
CREATE TABLE serve_lease (
    name        TEXT   NOT NULL PRIMARY KEY,
    holder      TEXT   NOT NULL,
    machine     TEXT   NOT NULL,
    pid         BIGINT NOT NULL,
    acquired_ms BIGINT NOT NULL,
    expires_ms  BIGINT NOT NULL
);
