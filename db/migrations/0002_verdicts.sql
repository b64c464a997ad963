-- What Claude said of a situation, or is still to say; shared by all members in that situation.
-- No names, ids or dates of anybody are in here.

CREATE TABLE verdict (
    key            bytea PRIMARY KEY,
    requested_at   timestamptz NOT NULL DEFAULT engagement_now(),
    due_at         timestamptz NOT NULL DEFAULT clock_timestamp(),  -- not asked before
    leased_until   timestamptz,            -- some worker is asking; after a crash it runs out
    settled_at     timestamptz,
    explanation_id bigint,
    input_tokens   bigint NOT NULL DEFAULT 0,
    output_tokens  bigint NOT NULL DEFAULT 0,
    cost_usd       numeric NOT NULL DEFAULT 0,
    attempts       integer NOT NULL DEFAULT 0,   -- calls begun
    failures       integer NOT NULL DEFAULT 0,   -- calls in a row that brought no answer
    status         text COLLATE "C" NOT NULL DEFAULT 'pending'
                   CHECK (status IN ('pending', 'answered', 'refused')),
    model          text COLLATE "C" NOT NULL,
    prompt_version text COLLATE "C" NOT NULL,
    rules_level    text COLLATE "C" NOT NULL,
    level          text COLLATE "C",
    fault          text COLLATE "C",  -- why the guard refused the last answer
    last_failure   text COLLATE "C",  -- why the last call brought none
    situation      jsonb NOT NULL,
    CHECK ((status = 'answered') = (level IS NOT NULL)),
    CHECK ((status = 'answered') = (explanation_id IS NOT NULL)),
    CHECK ((status = 'pending') = (settled_at IS NULL))
);
CREATE INDEX verdict_queue ON verdict (model, prompt_version, due_at) WHERE status = 'pending';
CREATE INDEX verdict_leased ON verdict (leased_until) WHERE leased_until IS NOT NULL;

-- Who waits for a verdict, or has it. Empty unless Claude is used.
CREATE INDEX engagement_by_verdict ON engagement (verdict_key) WHERE verdict_key IS NOT NULL;

-- One row per day (UTC). Budgets are reserved before a call and settled after it; what a crash
-- leaves reserved stays counted, since the call may have been paid for.
CREATE TABLE claude_usage (
    day             date PRIMARY KEY,
    calls           bigint NOT NULL DEFAULT 0,
    reserved_tokens bigint NOT NULL DEFAULT 0,
    input_tokens    bigint NOT NULL DEFAULT 0,
    output_tokens   bigint NOT NULL DEFAULT 0,
    cost_usd        numeric NOT NULL DEFAULT 0,
    agreed          bigint NOT NULL DEFAULT 0,   -- verdicts with the rules' own level
    differed        bigint NOT NULL DEFAULT 0    -- verdicts with another level
);

-- How often the rules had to do, by reason.
CREATE TABLE claude_fallback (
    day    date NOT NULL,
    reason text COLLATE "C" NOT NULL,
    count  bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (day, reason)
);
