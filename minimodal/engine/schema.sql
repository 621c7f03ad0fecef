-- The database's schema: one section for each version, applied in order, never edited once released.
-- A new version is a new section at the end; PRAGMA user_version is the number of sections applied.

-- version 1

-- Durable calls, from accepted to forgotten, and the finished attached calls that history keeps.
CREATE TABLE calls (
    seq INTEGER PRIMARY KEY,           -- the order of acceptance
    id TEXT NOT NULL UNIQUE,
    function TEXT NOT NULL,
    app TEXT NOT NULL,
    method TEXT NOT NULL,
    user TEXT NOT NULL,
    priority INTEGER NOT NULL,
    parent TEXT,
    depth INTEGER NOT NULL,
    stream INTEGER NOT NULL,
    durable INTEGER NOT NULL,
    grp TEXT,
    idx INTEGER NOT NULL,
    engine TEXT NOT NULL,              -- who owns it: only the owner starts and finishes it
    state TEXT NOT NULL,               -- CallState
    attempt INTEGER NOT NULL,          -- attempts started; the fence against late answers
    errors INTEGER NOT NULL,           -- of these, ended by the user's code or its timeout
    losses INTEGER NOT NULL,           -- of these, lost with their container or engine
    created REAL NOT NULL,
    not_before REAL,                   -- a queued call waits for its retry until then
    started REAL,                      -- of the last attempt
    finished REAL,                     -- NULL until the outcome is recorded
    dead INTEGER NOT NULL DEFAULT 0,   -- 1: in the dead letters
    expired INTEGER NOT NULL DEFAULT 0,
    retry_of TEXT,                     -- the dead letter that this call runs again
    blobs TEXT,                        -- digests that input and result refer to, with spaces between
    failure TEXT,                      -- Failure without its payload, JSON
    result BLOB,                       -- packed Payload: the value, or the failure's exception
    input BLOB                         -- packed Payload; NULL once nobody needs it
);
-- Small, because a row leaves it when it finishes; recovery and the takeover read only this.
CREATE INDEX calls_unfinished ON calls (engine, seq) WHERE finished IS NULL;
CREATE INDEX calls_created ON calls (created);
CREATE INDEX calls_dead ON calls (function, seq) WHERE dead = 1;
CREATE INDEX calls_blobs ON calls (seq) WHERE blobs IS NOT NULL;

-- Attempts that failed. A call that succeeds at once has none.
CREATE TABLE attempts (
    seq INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    lost INTEGER NOT NULL,             -- 1: infrastructure, 0: the user's code or its timeout
    started REAL,
    ended REAL NOT NULL,
    place TEXT NOT NULL,               -- always empty
    failure TEXT NOT NULL,             -- Failure without its payload, JSON
    PRIMARY KEY (seq, attempt)
) WITHOUT ROWID;

-- What a call's function is: recovery needs it when the script that defined it is gone.
CREATE TABLE specs (
    key TEXT PRIMARY KEY,
    spec TEXT NOT NULL,                -- FunctionSpec, JSON
    created REAL NOT NULL
) WITHOUT ROWID;

-- Blobs that a live engine needs and no row mentions.
CREATE TABLE pins (
    engine TEXT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (engine, digest)
) WITHOUT ROWID;

CREATE TABLE deployments (
    app TEXT NOT NULL,
    version INTEGER NOT NULL,
    specs TEXT NOT NULL,               -- FunctionSpecs, JSON
    note TEXT NOT NULL,                -- for people: a tag, or where a rollback came from
    created REAL NOT NULL,
    PRIMARY KEY (app, version)
);
CREATE TABLE apps (
    name TEXT PRIMARY KEY,
    current INTEGER                    -- the version that runs; NULL: stopped
) WITHOUT ROWID;

CREATE TABLE schedules (
    key TEXT PRIMARY KEY,              -- FunctionSpec.key
    last_tick REAL NOT NULL,
    last_call TEXT                     -- NULL: the tick was skipped by policy
) WITHOUT ROWID;

-- version 2

ALTER TABLE schedules ADD COLUMN paused INTEGER NOT NULL DEFAULT 0;

-- version 3

CREATE TABLE quotas (
    user TEXT PRIMARY KEY,
    weight REAL NOT NULL,
    max_running INTEGER,               -- NULL: unlimited
    max_queued INTEGER
) WITHOUT ROWID;
