-- The last metagraph of each subnet that was read, so that an outage of the chain is none of ours.
-- One row for each, replaced by the next: what the chain was at some time, the chain itself knows.
CREATE TABLE metagraphs (
    network        TEXT   NOT NULL,
    netuid         BIGINT NOT NULL,
    -- A network that was started anew has another genesis block under the same name.
    genesis        TEXT   NOT NULL,
    block          BIGINT NOT NULL,
    taken_ms       BIGINT NOT NULL,
    metagraph_json TEXT   NOT NULL,
    PRIMARY KEY (network, netuid)
);
