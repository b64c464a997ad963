-- The daily recompute: one row per slot, worked off in pages by all workers; and what it confirms.

-- Since when somebody looks after a job: slots before that are nobody's, so a first start runs none.
CREATE TABLE batch_job (
    job           text COLLATE "C" PRIMARY KEY,
    first_seen_at timestamptz NOT NULL
);

-- By the real clock, which tests and `engagement_now()` do not move: how long a run took.
ALTER TABLE batch_run
    ADD COLUMN began_clock timestamptz NOT NULL DEFAULT clock_timestamp(),
    ADD COLUMN ended_clock timestamptz;

-- A block of members is 262 144 consecutive numbers, whoever they belong to: large enough that
-- reading all facts once per block costs little, small enough that several workers share the work.
CREATE FUNCTION member_block(member_id bigint) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN member_id >> 18;

-- Whoever holds an unexpired lease works on the page; after a crash it runs out. Leases and retries
-- are about processes, so they run on the real clock. A page is surveyed first: all its members are
-- recomputed from their facts, and those for whom anything differs are put into chunks.
CREATE TABLE batch_page (
    job          text COLLATE "C" NOT NULL,
    slot         timestamptz NOT NULL,
    block        bigint NOT NULL,
    owner        uuid,
    leased_until timestamptz,
    retry_at     timestamptz,
    surveyed_at  timestamptz,
    done_at      timestamptz,
    members      bigint NOT NULL DEFAULT 0,  -- recomputed
    PRIMARY KEY (job, slot, block)
);

-- Members of a page to evaluate one by one; any worker takes any chunk.
CREATE TABLE batch_chunk (
    job             text COLLATE "C" NOT NULL,
    slot            timestamptz NOT NULL,
    block           bigint NOT NULL,
    chunk           integer NOT NULL,
    owner           uuid,
    leased_until    timestamptz,
    retry_at        timestamptz,
    done_at         timestamptz,
    attempts        integer NOT NULL DEFAULT 0,
    evaluated       bigint NOT NULL DEFAULT 0,
    changed         bigint NOT NULL DEFAULT 0,  -- changes of level
    publications    bigint NOT NULL DEFAULT 0,
    missed_by_clock bigint NOT NULL DEFAULT 0,  -- differed, though nobody knew that they were due
    failed          bigint NOT NULL DEFAULT 0,
    failed_org_ids  text[] COLLATE "C" NOT NULL DEFAULT '{}',
    member_ids      bigint[] NOT NULL,          -- still to do
    PRIMARY KEY (job, slot, block, chunk)
);
CREATE INDEX batch_chunk_open ON batch_chunk (job, slot, block, chunk) WHERE done_at IS NULL;

-- Organisations that could not be evaluated, and until when they are left alone.
CREATE TABLE batch_failure (
    job      text COLLATE "C" NOT NULL,
    slot     timestamptz NOT NULL,
    org_id   text COLLATE "C" NOT NULL,
    attempts integer NOT NULL DEFAULT 1,
    retry_at timestamptz NOT NULL,
    error    text NOT NULL,
    PRIMARY KEY (job, slot, org_id)
);

-- All members of a block were recomputed from their facts at this instant. Those for whom anything
-- had changed were written; for all others this one row says so, instead of a million new ones.
CREATE TABLE engagement_confirmation (
    block        bigint PRIMARY KEY,
    confirmed_at timestamptz NOT NULL
);

-- Organisations of a block that the confirmation does not speak for (suspended, or failing), with
-- the last one that did.
CREATE TABLE engagement_confirmation_exception (
    block        bigint NOT NULL,
    org_id       text COLLATE "C" NOT NULL,
    confirmed_at timestamptz,
    PRIMARY KEY (block, org_id)
);

GRANT SELECT ON engagement_confirmation, engagement_confirmation_exception TO engagement_api;
ALTER TABLE engagement_confirmation_exception ENABLE ROW LEVEL SECURITY;
ALTER TABLE engagement_confirmation_exception FORCE ROW LEVEL SECURITY;
CREATE POLICY one_organization ON engagement_confirmation_exception TO engagement_api
    USING (org_id = engagement_org()) WITH CHECK (org_id = engagement_org());
CREATE POLICY everything ON engagement_confirmation_exception TO engagement_worker
    USING (true) WITH CHECK (true);

-- The preview of thresholds says how many situations nobody has answered yet; no person is in them.
GRANT SELECT ON verdict TO engagement_api;

CREATE OR REPLACE VIEW member_signals WITH (security_invoker = true) AS
SELECT e.member_id, e.org_id, m.user_id, e.events_attended_90d, e.last_attended_at,
       e.rsvp_count_90d, e.last_rsvp_at, e.profile_updated_at, e.joined_at, e.joined_at_source,
       greatest(e.computed_at,
                CASE WHEN x.block IS NULL THEN c.confirmed_at ELSE x.confirmed_at END)
           AS computed_at
FROM engagement e
JOIN member m USING (member_id)
LEFT JOIN engagement_confirmation c ON c.block = e.member_id >> 18
LEFT JOIN engagement_confirmation_exception x
    ON x.block = e.member_id >> 18 AND x.org_id = e.org_id
WHERE e.computed_at IS NOT NULL;

CREATE OR REPLACE VIEW member_engagement WITH (security_invoker = true) AS
SELECT e.member_id AS engagement_id, e.org_id, m.user_id,
       CASE WHEN o.active THEN e.override_level ELSE e.computed_level END AS level,
       e.computed_level,
       CASE WHEN o.lapsed AND e.override_level IS DISTINCT FROM e.computed_level
            THEN e.override_level ELSE e.previous_level END AS previous_level,
       CASE WHEN o.lapsed AND e.override_level IS DISTINCT FROM e.computed_level
            THEN e.override_expires_at ELSE e.level_since END AS level_since,
       e.reason,
       CASE WHEN o.active THEN 'override' ELSE e.computed_source END AS source,
       e.events_attended_90d, e.last_attended_at, e.rsvp_count_90d, e.last_rsvp_at,
       e.profile_updated_at, e.joined_at, e.joined_at_source,
       e.thresholds_version, e.activity_window_days,
       x.admin_template AS admin_explanation, x.user_template AS user_explanation,
       CASE WHEN o.active THEN e.override_level END AS override_level,
       CASE WHEN o.active THEN e.overridden_at END AS overridden_at,
       CASE WHEN o.active THEN e.override_expires_at END AS override_expires_at,
       CASE WHEN o.active THEN e.overridden_by END AS overridden_by,
       CASE WHEN o.active THEN e.override_notes END AS override_notes,
       e.next_change_at, e.next_level_change_at, e.next_level,
       e.model_version,
       greatest(e.computed_at,
                CASE WHEN cx.block IS NULL THEN c.confirmed_at ELSE cx.confirmed_at END)
           AS computed_at,
       e.revision,
       e.rule, e.rules_level, e.counted_event_ids,
       e.improvement_events, e.improvement_before, e.improvement_level
FROM engagement e
JOIN member m USING (member_id)
CROSS JOIN LATERAL (
    SELECT e.override_level IS NOT NULL AND e.computed_level IS NOT NULL
               AND (e.override_expires_at IS NULL OR e.override_expires_at > engagement_now()),
           e.override_level IS NOT NULL AND e.computed_level IS NOT NULL
               AND e.override_expires_at <= engagement_now()
) AS o (active, lapsed)
LEFT JOIN explanation x
    ON x.explanation_id = CASE WHEN o.active THEN e.override_explanation_id ELSE e.explanation_id END
LEFT JOIN engagement_confirmation c ON c.block = e.member_id >> 18
LEFT JOIN engagement_confirmation_exception cx
    ON cx.block = e.member_id >> 18 AND cx.org_id = e.org_id
WHERE e.computed_at IS NOT NULL;
