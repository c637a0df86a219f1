-- Challenges of the GPU proof-of-work, each stored before any of it is sent. Never overwritten.
CREATE TABLE challenges (
    -- The challenge id of the context, in hexadecimal.
    id             TEXT   NOT NULL PRIMARY KEY,
    host           TEXT   NOT NULL,
    issued_ms      BIGINT NOT NULL,
    issued_by      TEXT   NOT NULL,
    backend        TEXT   NOT NULL,
    challenge_json TEXT   NOT NULL
);
CREATE INDEX challenges_by_host ON challenges (host, issued_ms);

-- How each challenge ended, at most one row for each. A challenge without one was interrupted: the
-- program or its machine died. `outcome` is accepted, unproven or rejected by the verifier, or
-- failed when there is no proof; then `reason` and `message` say why.
CREATE TABLE proofs (
    challenge    TEXT   NOT NULL PRIMARY KEY REFERENCES challenges (id),
    ended_ms     BIGINT NOT NULL,
    outcome      TEXT   NOT NULL,
    reason       TEXT,
    message      TEXT,
    verdict_json TEXT,
    -- The signed document, as `verify --proof-out` writes it.
    proof_json   TEXT
);
