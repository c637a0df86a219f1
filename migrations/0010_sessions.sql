-- Sessions of validators with the axon: a token is good while its row is here and has not ended. Tokens
-- themselves are not kept. A row goes some time after it expired; the audit chain keeps what happened.
CREATE TABLE axon_sessions (
    -- The token's id.
    id         TEXT   NOT NULL PRIMARY KEY,
    -- The hotkey that the token is for.
    axon       TEXT   NOT NULL,
    validator  TEXT   NOT NULL,
    -- From where it was opened.
    address    TEXT   NOT NULL,
    issued_ms  BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL,
    ended_ms   BIGINT,
    -- Who ended it.
    ended_by   TEXT
);
CREATE INDEX axon_sessions_by_validator ON axon_sessions (validator, expires_ms);
CREATE INDEX axon_sessions_by_end ON axon_sessions (expires_ms);

-- The challenges of one GPU on one host, newest first.
CREATE INDEX challenges_by_gpu ON challenges (host, gpu_uuid, issued_ms);
