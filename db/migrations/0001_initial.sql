-- Facts, what follows from them, what was said about it, and how far the topics are read.
--
-- Base tables are narrow and keyed by a surrogate member_id; the names of the contract that are not
-- base tables are views at the end. Ids are compared as bytes, hence COLLATE "C".

-- The one clock. Everything that decides by time asks here, so that it can be set in one place.
CREATE FUNCTION engagement_now() RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN transaction_timestamp();

-- ---------------------------------------------------------------------------------------- facts

CREATE TABLE member (
    member_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    accept_after timestamptz,  -- erased at this instant: older records are dropped
    org_id       text COLLATE "C" NOT NULL,
    user_id      text COLLATE "C" NOT NULL,
    UNIQUE (org_id, user_id)
);
CREATE INDEX member_by_user ON member (user_id);
CREATE INDEX member_by_org ON member (org_id, member_id);

CREATE TABLE attendance_fact (
    member_id   bigint NOT NULL,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    event_id    text COLLATE "C" NOT NULL,
    status      text COLLATE "C" NOT NULL,
    message_id  text COLLATE "C" NOT NULL,
    PRIMARY KEY (member_id, event_id)
);

CREATE TABLE rsvp_fact (
    member_id    bigint NOT NULL,
    responded_at timestamptz NOT NULL,
    recorded_at  timestamptz NOT NULL,
    event_id     text COLLATE "C" NOT NULL,
    response     text COLLATE "C" NOT NULL,
    message_id   text COLLATE "C" NOT NULL,
    PRIMARY KEY (member_id, event_id)
);

CREATE TABLE profile_fact (
    updated_at  timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    user_id     text COLLATE "C" NOT NULL,
    message_id  text COLLATE "C" NOT NULL,
    actor       text COLLATE "C" NOT NULL,
    PRIMARY KEY (user_id, message_id)
);

CREATE TABLE membership_fact (
    member_id    bigint PRIMARY KEY,
    joined_at    timestamptz NOT NULL,
    recorded_at  timestamptz NOT NULL,
    message_id   text COLLATE "C" NOT NULL,
    status       text COLLATE "C" NOT NULL,
    role         text COLLATE "C" NOT NULL,
    display_name text COLLATE "C"
);

CREATE TABLE organization_fact (
    org_id      text COLLATE "C" PRIMARY KEY,
    recorded_at timestamptz NOT NULL,
    message_id  text COLLATE "C" NOT NULL,
    status      text COLLATE "C" NOT NULL,
    name        text COLLATE "C" NOT NULL
);

-- ----------------------------------------------------------------------------------- thresholds

CREATE TABLE thresholds (
    org_id                    text COLLATE "C" NOT NULL,
    version                   integer NOT NULL CHECK (version >= 1),
    highly_engaged_min_events integer NOT NULL,
    moderate_min_events       integer NOT NULL,
    activity_window_days      integer NOT NULL,
    new_member_days           integer NOT NULL,
    inactive_after_days       integer NOT NULL,
    author                    text COLLATE "C" NOT NULL,
    note                      text NOT NULL DEFAULT '',
    created_at                timestamptz NOT NULL,
    PRIMARY KEY (org_id, version),
    CHECK (highly_engaged_min_events BETWEEN 2 AND 10000),
    CHECK (moderate_min_events >= 1 AND moderate_min_events < highly_engaged_min_events),
    CHECK (new_member_days BETWEEN 0 AND 3650),
    CHECK (activity_window_days >= 1 AND activity_window_days <= inactive_after_days),
    CHECK (inactive_after_days <= 3650)
);

-- --------------------------------------------------------------------------- texts and verdicts

-- Pairs of texts with placeholders; few, shared by all members in the same situation.
CREATE TABLE explanation (
    explanation_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest          bytea NOT NULL UNIQUE,
    admin_template  text NOT NULL,
    user_template   text NOT NULL
);

-- ----------------------------------------------------------------------------------- engagement

-- One row per known member: signals, result and override as last evaluated. `revision` counts
-- published states. `wake_at` is when the row has to be looked at again if nothing arrives.
CREATE TABLE engagement (
    member_id                bigint PRIMARY KEY,
    revision                 bigint NOT NULL DEFAULT 0,
    computed_at              timestamptz,
    wake_at                  timestamptz,
    next_change_at           timestamptz,
    next_level_change_at     timestamptz,
    level_since              timestamptz,
    last_attended_at         timestamptz,
    last_rsvp_at             timestamptz,
    profile_updated_at       timestamptz,
    joined_at                timestamptz,
    improvement_before       timestamptz,
    overridden_at            timestamptz,
    override_expires_at      timestamptz,
    explanation_id           bigint,
    override_explanation_id  bigint,
    events_attended_90d      integer,
    rsvp_count_90d           integer,
    thresholds_version       integer,
    activity_window_days     integer,
    improvement_events       integer,
    rule                     smallint,
    org_id                   text COLLATE "C" NOT NULL,
    level                    text COLLATE "C",
    computed_level           text COLLATE "C",
    rules_level              text COLLATE "C",
    previous_level           text COLLATE "C",
    next_level               text COLLATE "C",
    reason                   text COLLATE "C",
    computed_source          text COLLATE "C",
    joined_at_source         text COLLATE "C",
    model_version            text COLLATE "C",
    improvement_level        text COLLATE "C",
    counted_event_ids        text[] COLLATE "C",
    verdict_key              bytea,
    override_level           text COLLATE "C",
    overridden_by            text COLLATE "C",
    override_notes           text,
    CHECK ((override_level IS NULL) = (overridden_at IS NULL)),
    CHECK ((override_level IS NULL) = (override_notes IS NULL))
);
CREATE INDEX engagement_by_org_level ON engagement (org_id, level, member_id);
CREATE INDEX engagement_by_wake_at ON engagement (wake_at) WHERE wake_at IS NOT NULL;

CREATE TABLE engagement_level_history (
    id             uuid NOT NULL,
    member_id      bigint NOT NULL,
    revision       bigint NOT NULL,
    effective_at   timestamptz NOT NULL,
    recorded_at    timestamptz NOT NULL,
    org_id         text COLLATE "C" NOT NULL,
    user_id        text COLLATE "C" NOT NULL,
    from_level     text COLLATE "C",
    to_level       text COLLATE "C",
    cause          text COLLATE "C" NOT NULL,
    reason         text COLLATE "C",
    computed_level text COLLATE "C",
    source         text COLLATE "C",
    PRIMARY KEY (member_id, revision)
);
CREATE INDEX engagement_level_history_by_org ON engagement_level_history (org_id, recorded_at);

CREATE TABLE engagement_override_history (
    override_history_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    engagement_id       bigint NOT NULL,
    performed_at        timestamptz NOT NULL,
    expires_at          timestamptz,
    org_id              text COLLATE "C" NOT NULL,
    user_id             text COLLATE "C" NOT NULL,
    previous_level      text COLLATE "C",
    new_level           text COLLATE "C",
    notes               text,
    action              text COLLATE "C" NOT NULL CHECK (action IN ('override', 'clear', 'expire')),
    performed_by        text COLLATE "C" NOT NULL
);
CREATE INDEX engagement_override_history_by_engagement
    ON engagement_override_history (engagement_id, override_history_id);
CREATE INDEX engagement_override_history_by_org
    ON engagement_override_history (org_id, performed_at);

-- Both histories are append-only. The erasure function alone announces itself in a setting that is
-- local to its transaction, and may then change who a row is about.
CREATE FUNCTION refuse_history_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND current_setting('engagement.erasing', true) = 'yes' THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON engagement_level_history
    FOR EACH ROW EXECUTE FUNCTION refuse_history_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON engagement_level_history
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_history_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON engagement_override_history
    FOR EACH ROW EXECUTE FUNCTION refuse_history_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON engagement_override_history
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_history_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON thresholds
    FOR EACH ROW EXECUTE FUNCTION refuse_history_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON thresholds
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_history_change();

-- ----------------------------------------------------------------------------------------- due

-- Insert-only marks: who has to be looked at, and why. A member may have any number of marks.
CREATE TABLE due_member (
    mark_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    member_id bigint NOT NULL,
    marked_at timestamptz NOT NULL DEFAULT engagement_now(),
    cause     text COLLATE "C" NOT NULL
);

-- A profile update concerns the user in every organisation; who that is, is looked up when taken.
CREATE TABLE due_user (
    mark_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id text COLLATE "C" NOT NULL
);

-- All members of an organisation, worked off in slices after `after_member_id`.
CREATE TABLE due_organization (
    mark_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    after_member_id bigint NOT NULL DEFAULT 0,
    org_id          text COLLATE "C" NOT NULL,
    cause           text COLLATE "C" NOT NULL
);

-- ------------------------------------------------------------------------------ in, out, periodic

CREATE TABLE stream_offset (
    topic                text COLLATE "C" NOT NULL,
    partition            integer NOT NULL,
    next_offset          bigint NOT NULL,
    epoch                bigint NOT NULL DEFAULT 0,
    generation           bigint NOT NULL DEFAULT 0,
    owner                uuid,
    consecutive_failures integer NOT NULL DEFAULT 0,
    stopped_at           timestamptz,
    fingerprint          bigint,   -- CRC-32 of the last applied record, to notice a recreated topic
    updated_at           timestamptz NOT NULL DEFAULT engagement_now(),
    PRIMARY KEY (topic, partition)
);

CREATE TABLE dead_letter (
    topic        text COLLATE "C" NOT NULL,
    partition    integer NOT NULL,
    "offset"     bigint NOT NULL,
    code         text COLLATE "C" NOT NULL,
    message      text NOT NULL,
    key          bytea,
    value        bytea,
    headers      jsonb NOT NULL DEFAULT '[]',
    org_id       text COLLATE "C",
    user_id      text COLLATE "C",
    failed_at    timestamptz NOT NULL DEFAULT engagement_now(),
    published_at timestamptz,
    replayed_at  timestamptz,
    PRIMARY KEY (topic, partition, "offset")
);
CREATE INDEX dead_letter_unpublished ON dead_letter (failed_at) WHERE published_at IS NULL;

-- One row per published state of a member. Bodies are final: a repeat sends the same bytes.
CREATE TABLE outbox (
    outbox_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    member_id   bigint NOT NULL,
    revision    bigint NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT engagement_now(),
    message_key text COLLATE "C" NOT NULL,
    level_body  bytea,          -- NULL is the tombstone
    change_body bytea           -- NULL: the level did not change
);

-- Work that one worker does at a time. Whoever holds an unexpired row holds the work.
CREATE TABLE lease (
    name       text COLLATE "C" PRIMARY KEY,
    owner      uuid NOT NULL,
    epoch      bigint NOT NULL DEFAULT 1,
    expires_at timestamptz NOT NULL
);

CREATE TABLE batch_run (
    job         text COLLATE "C" NOT NULL,
    slot        timestamptz NOT NULL,
    status      text COLLATE "C" NOT NULL DEFAULT 'running',
    started_at  timestamptz NOT NULL DEFAULT engagement_now(),
    finished_at timestamptz,
    summary     jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (job, slot)
);

-- Something that a person has to look at: lost or recreated topics.
CREATE TABLE incident (
    incident_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text COLLATE "C" NOT NULL,
    topic       text COLLATE "C",
    partition   integer,
    details     jsonb NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT engagement_now()
);

-- ---------------------------------------------------------------------------------------- views

CREATE VIEW attendance WITH (security_invoker = true) AS
SELECT f.message_id AS id, m.org_id, m.user_id, f.event_id, f.status, f.occurred_at, f.recorded_at
FROM attendance_fact f JOIN member m USING (member_id);

CREATE VIEW rsvp WITH (security_invoker = true) AS
SELECT f.message_id AS id, m.org_id, m.user_id, f.event_id, f.response, f.responded_at, f.recorded_at
FROM rsvp_fact f JOIN member m USING (member_id);

CREATE VIEW profile WITH (security_invoker = true) AS
SELECT message_id AS id, user_id, updated_at, actor, recorded_at FROM profile_fact;

CREATE VIEW membership WITH (security_invoker = true) AS
SELECT f.message_id AS id, m.org_id, m.user_id, f.status, f.role, f.display_name, f.joined_at,
       f.recorded_at
FROM membership_fact f JOIN member m USING (member_id);

CREATE VIEW organization WITH (security_invoker = true) AS
SELECT message_id AS id, org_id, name, status, recorded_at FROM organization_fact;

CREATE VIEW member_signals WITH (security_invoker = true) AS
SELECT e.member_id, e.org_id, m.user_id, e.events_attended_90d, e.last_attended_at,
       e.rsvp_count_90d, e.last_rsvp_at, e.profile_updated_at, e.joined_at, e.joined_at_source,
       e.computed_at
FROM engagement e JOIN member m USING (member_id)
WHERE e.computed_at IS NOT NULL;

-- What the world sees now: an override that has expired no longer counts, whether or not the timer
-- that writes it down has run.
CREATE VIEW member_engagement WITH (security_invoker = true) AS
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
       e.model_version, e.computed_at, e.revision,
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
WHERE e.computed_at IS NOT NULL;
