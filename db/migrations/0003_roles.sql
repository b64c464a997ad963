-- Who may see what. Two roles that nobody logs in as:
--   engagement_worker  everything; whoever runs the worker is a member of it
--   engagement_api     one organisation at a time, the one in the setting engagement.org_id
-- The API switches to its role in every transaction, so that a forgotten WHERE finds nothing.
-- Works for a superuser and for a plain owner with CREATEROLE; roles belong to the whole cluster,
-- so they may be there already, or appear while we look.

DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['engagement_worker', 'engagement_api'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE '
                               'NOCREATEDB NOREPLICATION', wanted);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;  -- another database of this cluster was faster
            END;
        END IF;
    END LOOP;
    IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        RETURN;
    END IF;
    BEGIN
        -- Inherited: the owner's own statements fall under the worker's policies. Not inherited:
        -- the API's role is put on for a transaction and taken off again.
        IF NOT pg_has_role(current_user, 'engagement_worker', 'USAGE') THEN
            EXECUTE format('GRANT engagement_worker TO %I WITH INHERIT TRUE, SET TRUE', current_user);
        END IF;
        IF NOT pg_has_role(current_user, 'engagement_api', 'SET') THEN
            EXECUTE format('GRANT engagement_api TO %I WITH INHERIT FALSE, SET TRUE', current_user);
        END IF;
    EXCEPTION WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'role % may not use engagement_worker and engagement_api', current_user
            USING ERRCODE = 'insufficient_privilege',
                  HINT = format('as a superuser: GRANT engagement_worker TO %I; '
                                'GRANT engagement_api TO %I WITH INHERIT FALSE, SET TRUE',
                                current_user, current_user);
    END;
END
$$;

-- -------------------------------------------------------------------------------------- sessions

-- Browsers that signed in, and one-time sign-in links. Only hashes of the secrets are kept.
CREATE TABLE http_session (
    token_hash bytea PRIMARY KEY,
    kind       text COLLATE "C" NOT NULL CHECK (kind IN ('session', 'link')),
    user_id    text COLLATE "C" NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX http_session_by_expiry ON http_session (expires_at);

-- ------------------------------------------------------------------------------------ privileges

GRANT USAGE ON SCHEMA public TO engagement_worker, engagement_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO engagement_worker;
ALTER DEFAULT PRIVILEGES IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO engagement_worker;

GRANT SELECT ON
    member, attendance_fact, rsvp_fact, profile_fact, membership_fact, organization_fact,
    thresholds, explanation, engagement, engagement_level_history, engagement_override_history,
    attendance, rsvp, profile, membership, organization, member_signals, member_engagement
    TO engagement_api;
-- What an override, new thresholds and a wish to recompute write.
GRANT UPDATE ON engagement TO engagement_api;
GRANT INSERT ON
    engagement_level_history, engagement_override_history, thresholds, explanation,
    outbox, due_member, due_organization
    TO engagement_api;
-- RETURNING reads what was written; rows of other organisations stay out of sight.
GRANT SELECT ON outbox, due_member, due_organization TO engagement_api;
GRANT SELECT, INSERT, DELETE ON http_session TO engagement_api;
-- Which situations have an answer: what a preview counts. Nobody's data.
GRANT SELECT (key, status) ON verdict TO engagement_api;
-- The run is everybody's; its summary speaks of other organisations.
GRANT SELECT (job, slot, status, started_at, finished_at) ON batch_run TO engagement_api;

-- ---------------------------------------------------------------------------- row-level security

CREATE FUNCTION engagement_org() RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN current_setting('engagement.org_id', true);

DO $$
DECLARE
    target text;
BEGIN
    FOREACH target IN ARRAY ARRAY[
        'member', 'organization_fact', 'thresholds', 'engagement', 'engagement_level_history',
        'engagement_override_history', 'due_organization'
    ] LOOP
        EXECUTE format('CREATE POLICY one_organization ON %I TO engagement_api '
                       'USING (org_id = engagement_org()) WITH CHECK (org_id = engagement_org())',
                       target);
    END LOOP;
    -- These have no org_id: what belongs to a member that the role can see.
    FOREACH target IN ARRAY ARRAY[
        'attendance_fact', 'rsvp_fact', 'membership_fact', 'due_member', 'outbox'
    ] LOOP
        EXECUTE format('CREATE POLICY one_organization ON %I TO engagement_api '
                       'USING (EXISTS (SELECT FROM member m WHERE m.member_id = %I.member_id)) '
                       'WITH CHECK (EXISTS (SELECT FROM member m WHERE m.member_id = %I.member_id))',
                       target, target, target);
    END LOOP;
    CREATE POLICY one_organization ON profile_fact FOR SELECT TO engagement_api
        USING (EXISTS (SELECT FROM member m
                       WHERE m.org_id = engagement_org() AND m.user_id = profile_fact.user_id));
    FOREACH target IN ARRAY ARRAY[
        'member', 'organization_fact', 'thresholds', 'engagement', 'engagement_level_history',
        'engagement_override_history', 'due_organization', 'attendance_fact', 'rsvp_fact',
        'membership_fact', 'profile_fact', 'due_member', 'due_user', 'outbox', 'dead_letter'
    ] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', target);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', target);
        EXECUTE format('CREATE POLICY everything ON %I TO engagement_worker '
                       'USING (true) WITH CHECK (true)', target);
    END LOOP;
END
$$;

-- --------------------------------------------------------------------------------------- indexes

-- Who changes soon, in order; also what the overview counts.
CREATE INDEX engagement_by_org_due ON engagement (org_id, next_level_change_at, member_id)
    WHERE next_level_change_at IS NOT NULL;
-- Few rows: who has an override, and which of them is over.
CREATE INDEX engagement_by_org_override ON engagement (org_id, override_expires_at, member_id)
    WHERE override_level IS NOT NULL;
