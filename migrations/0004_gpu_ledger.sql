-- Which GPU was seen on which host, one row for each pair. A UUID that two hosts show at the same time
-- is one GPU sold twice, or a lie.
CREATE TABLE gpu_sightings (
    uuid          TEXT   NOT NULL,
    host          TEXT   NOT NULL,
    first_seen_ms BIGINT NOT NULL,
    last_seen_ms  BIGINT NOT NULL,
    -- What saw it last: deploy or verify.
    seen_by       TEXT   NOT NULL,
    -- When a proof of it was last accepted there.
    proven_ms     BIGINT,
    -- When a later look at the host did not show it any more.
    gone_ms       BIGINT,
    PRIMARY KEY (uuid, host)
);
CREATE INDEX gpu_sightings_by_host ON gpu_sightings (host);

-- Which GPU a challenge was to, how long it was, and for which model.
ALTER TABLE challenges ADD COLUMN gpu_uuid TEXT;
ALTER TABLE challenges ADD COLUMN mode TEXT;
ALTER TABLE challenges ADD COLUMN model TEXT;

-- What was measured, for the history of a GPU; the proof has the same, signed.
ALTER TABLE proofs ADD COLUMN failed_check TEXT;
ALTER TABLE proofs ADD COLUMN fill_ns BIGINT;
ALTER TABLE proofs ADD COLUMN chain_ns BIGINT;
ALTER TABLE proofs ADD COLUMN gemm_ns BIGINT;
-- The smallest round trip of that session.
ALTER TABLE proofs ADD COLUMN rtt_ns BIGINT;
-- Clocks, power, temperature and throttling while the proof ran, as the host said.
ALTER TABLE proofs ADD COLUMN telemetry_json TEXT;
