-- Sweeps: one row for each pass over the fleet. One without an end was interrupted.
CREATE TABLE sweeps (
    id          TEXT   NOT NULL PRIMARY KEY,
    started_ms  BIGINT NOT NULL,
    started_by  TEXT   NOT NULL,
    ended_ms    BIGINT,
    hosts       BIGINT NOT NULL,
    well        BIGINT,
    troubled    BIGINT,
    unreached   BIGINT,
    -- Hosts whose turn did not come before the deadline.
    not_probed  BIGINT
);
CREATE INDEX sweeps_by_time ON sweeps (started_ms);

-- One look at one host. Kept for a while (`sweep.history`), so it is small: what lasts is in `facts`.
CREATE TABLE probes (
    sweep      TEXT   NOT NULL REFERENCES sweeps (id),
    host       TEXT   NOT NULL,
    at_ms      BIGINT NOT NULL,
    elapsed_ms BIGINT NOT NULL,
    reached    BIGINT NOT NULL,
    -- The host's state after it.
    state      TEXT   NOT NULL,
    -- The worst severity that was found, if any.
    worst      TEXT,
    -- Core temperatures of its GPUs in degrees Celsius, separated by commas.
    celsius    TEXT,
    PRIMARY KEY (sweep, host)
);
CREATE INDEX probes_by_host ON probes (host, at_ms);

-- A finding from when it was first seen to when it was gone, at most one open row for each thing.
CREATE TABLE findings (
    id          TEXT   NOT NULL PRIMARY KEY,
    host        TEXT   NOT NULL,
    code        TEXT   NOT NULL,
    subject     TEXT   NOT NULL,
    severity    TEXT   NOT NULL,
    seen        TEXT   NOT NULL,
    expected    TEXT   NOT NULL,
    -- Sweeps in a row that have seen it, counted up to where it counts for the host's state.
    times       BIGINT NOT NULL,
    first_ms    BIGINT NOT NULL,
    resolved_ms BIGINT
);
CREATE UNIQUE INDEX findings_open ON findings (host, code, subject) WHERE resolved_ms IS NULL;
CREATE INDEX findings_by_host ON findings (host, first_ms);

-- What a host is known by: the lasting part of its last good facts. Deploys and first sweeps write it.
CREATE TABLE passports (
    host          TEXT   NOT NULL PRIMARY KEY,
    taken_ms      BIGINT NOT NULL,
    passport_json TEXT   NOT NULL
);

-- What sweeps remember of a host from one to the next.
CREATE TABLE sweep_memory (
    host        TEXT NOT NULL PRIMARY KEY,
    memory_json TEXT NOT NULL
);

-- Who sweeps now. A holder that stops renewing loses it at `expires_ms`.
CREATE TABLE sweep_lock (
    name       TEXT   NOT NULL PRIMARY KEY,
    token      TEXT   NOT NULL,
    holder     TEXT   NOT NULL,
    since_ms   BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL
);

-- What was last told of a host, so that nothing is told twice.
CREATE TABLE alert_marks (
    host    TEXT   NOT NULL PRIMARY KEY,
    state   TEXT   NOT NULL,
    told_ms BIGINT NOT NULL
);

-- Alerts on their way: one row for each channel. A row goes when it is delivered or given up.
CREATE TABLE alert_outbox (
    id         TEXT   NOT NULL PRIMARY KEY,
    channel    TEXT   NOT NULL,
    created_ms BIGINT NOT NULL,
    alert_json TEXT   NOT NULL,
    attempts   BIGINT NOT NULL,
    next_ms    BIGINT NOT NULL,
    last_error TEXT
);
CREATE INDEX alert_outbox_due ON alert_outbox (next_ms);

-- How long each proof took, out of its document, so that times can be compared without reading those.
CREATE TABLE proof_times (
    challenge TEXT   NOT NULL PRIMARY KEY REFERENCES challenges (id),
    host      TEXT   NOT NULL,
    gpu       TEXT   NOT NULL,
    -- A hash of the kernels and the sizes: only times of one kind are comparable.
    kind      BIGINT NOT NULL,
    at_ms     BIGINT NOT NULL,
    nanos     BIGINT NOT NULL
);
CREATE INDEX proof_times_by_host ON proof_times (host, at_ms);
