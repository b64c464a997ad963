-- How a member is erased, and who alone may touch a history for it.
--
-- The histories are append-only for everybody. Erasing has to take the person out of them, so it is
-- one function that belongs to a role of its own, engagement_eraser, as which nobody logs in. The
-- triggers let that role pass, and only to change who a row is about, who wrote it and its notes:
-- never a level, a cause or a time.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'engagement_eraser') THEN
        BEGIN
            CREATE ROLE engagement_eraser NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB
                NOREPLICATION;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;  -- another database of this cluster was faster
        END;
    END IF;
    IF NOT pg_has_role(current_user, 'engagement_eraser', 'SET') THEN
        BEGIN
            EXECUTE format('GRANT engagement_eraser TO %I WITH INHERIT FALSE, SET TRUE',
                           current_user);
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE EXCEPTION 'role % may not use engagement_eraser', current_user
                USING ERRCODE = 'insufficient_privilege',
                      HINT = format('as a superuser: GRANT engagement_eraser TO %I '
                                    'WITH INHERIT FALSE, SET TRUE', current_user);
        END;
    END IF;
END
$$;

GRANT USAGE ON SCHEMA public TO engagement_eraser;
GRANT SELECT, UPDATE, DELETE ON attendance_fact, rsvp_fact, membership_fact TO engagement_eraser;
GRANT SELECT, DELETE ON profile_fact, due_user, http_session TO engagement_eraser;
GRANT SELECT, INSERT, UPDATE, DELETE ON member, engagement TO engagement_eraser;
GRANT SELECT, UPDATE ON
    engagement_level_history, engagement_override_history, thresholds, dead_letter
    TO engagement_eraser;
GRANT SELECT, INSERT ON due_member TO engagement_eraser;
GRANT SELECT, INSERT, UPDATE ON erasure TO engagement_eraser;
GRANT SELECT ON erasure_key TO engagement_eraser;

DO $$
DECLARE
    target text;
BEGIN
    FOREACH target IN ARRAY ARRAY[
        'member', 'attendance_fact', 'rsvp_fact', 'membership_fact', 'profile_fact', 'engagement',
        'engagement_level_history', 'engagement_override_history', 'thresholds', 'dead_letter',
        'due_member', 'due_user'
    ] LOOP
        EXECUTE format('CREATE POLICY erasing ON %I TO engagement_eraser '
                       'USING (true) WITH CHECK (true)', target);
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION refuse_history_change() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    personal CONSTANT text[] := ARRAY['id', 'user_id', 'performed_by', 'author', 'notes'];
BEGIN
    IF TG_OP = 'UPDATE' AND current_user = 'engagement_eraser'
            AND to_jsonb(NEW) - personal = to_jsonb(OLD) - personal THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$;

-- A dead letter that was emptied is neither published nor replayed any more.
ALTER TABLE dead_letter ADD COLUMN erased_at timestamptz;
CREATE INDEX erasure_by_forget_at ON erasure (forget_at);

-- Facts arrive while a member is being erased. Whoever applies records holds this lock shared,
-- whoever erases holds it alone: no fact is written for a member who has just gone.
CREATE FUNCTION erasure_lock() RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN 7310312398337012078;

-- Whether an id stands by itself in a text: ids are made of the characters in the brackets.
CREATE FUNCTION mentions_id(payload bytea, id text) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF payload IS NULL OR position(convert_to(id, 'UTF8') IN payload) = 0 THEN
        RETURN false;
    END IF;
    -- LATIN1 takes any byte but NUL.
    RETURN CASE WHEN position('\x00'::bytea IN payload) = 0 THEN convert_from(payload, 'LATIN1')
                ELSE encode(payload, 'escape') END
        ~ ('(^|[^A-Za-z0-9._@|-])' || regexp_replace(id, '([.|])', '\\\1', 'g')
           || '($|[^A-Za-z0-9._@|-])');
END
$$;

-- Erase one member of one organisation; the caller has closed the shown level in the same
-- transaction, under the member's row lock, and says which revision that came to. Idempotent.
-- `removed` counts rows by kind. The caller's transaction holds erasure_lock() alone.
CREATE FUNCTION erase_member(
    p_org_id text, p_user_id text, p_erased_at timestamptz, p_revision bigint, p_memory interval,
    OUT was_known boolean, OUT removed jsonb
)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    p_subject  CONSTANT bytea := erasure_subject(p_org_id || ':' || p_user_id);
    p_user     CONSTANT bytea := erasure_subject(p_user_id);
    token      CONSTANT text := 'erased-' || replace(gen_random_uuid()::text, '-', '');
    gone       member%ROWTYPE;
    last       bigint;
    counts     jsonb := '{}';
    touched    bigint;
    is_last    boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(erasure_lock());
    was_known := EXISTS (SELECT FROM erasure e WHERE e.subject = p_subject);
    SELECT * INTO gone FROM member m WHERE m.org_id = p_org_id AND m.user_id = p_user_id FOR UPDATE;
    was_known := was_known OR FOUND;
    IF gone.member_id IS NOT NULL THEN
        SELECT e.revision INTO last FROM engagement e WHERE e.member_id = gone.member_id FOR UPDATE;
    END IF;
    last := greatest(last, p_revision, 0);
    INSERT INTO erasure AS e (subject, erased_at, revision, forget_at)
    VALUES (p_subject, p_erased_at, last, engagement_now() + p_memory)
    ON CONFLICT (subject) DO UPDATE
    SET erased_at = greatest(e.erased_at, excluded.erased_at),
        revision = greatest(e.revision, excluded.revision),
        forget_at = greatest(e.forget_at, excluded.forget_at);
    IF gone.member_id IS NOT NULL
            AND (gone.accept_after IS NULL OR gone.accept_after < p_erased_at) THEN
        counts := counts || erase_facts(gone, p_erased_at, last, token);
    END IF;

    -- The person as author.
    UPDATE engagement_override_history h SET performed_by = token
    WHERE h.org_id = p_org_id AND h.performed_by = p_user_id;
    GET DIAGNOSTICS touched = ROW_COUNT;
    UPDATE thresholds t SET author = token WHERE t.org_id = p_org_id AND t.author = p_user_id;
    UPDATE engagement e SET overridden_by = token
    WHERE e.org_id = p_org_id AND e.override_level IS NOT NULL AND e.overridden_by = p_user_id;
    counts := counts || jsonb_build_object('authorships', touched);

    -- What belongs to the person in every organisation goes with the last one.
    is_last := NOT EXISTS (
        SELECT FROM member m WHERE m.user_id = p_user_id AND (
            EXISTS (SELECT FROM membership_fact f WHERE f.member_id = m.member_id)
            OR EXISTS (SELECT FROM attendance_fact f WHERE f.member_id = m.member_id)
            OR EXISTS (SELECT FROM rsvp_fact f WHERE f.member_id = m.member_id)));
    IF is_last THEN
        DELETE FROM profile_fact f WHERE f.user_id = p_user_id AND f.recorded_at <= p_erased_at;
        GET DIAGNOSTICS touched = ROW_COUNT;
        counts := counts || jsonb_build_object('profile_updates', touched);
        INSERT INTO erasure AS e (subject, erased_at, forget_at)
        VALUES (p_user, p_erased_at, engagement_now() + p_memory)
        ON CONFLICT (subject) DO UPDATE
        SET erased_at = greatest(e.erased_at, excluded.erased_at),
            forget_at = greatest(e.forget_at, excluded.forget_at);
        DELETE FROM due_user d WHERE d.user_id = p_user_id
            AND NOT EXISTS (SELECT FROM profile_fact f WHERE f.user_id = p_user_id);
        DELETE FROM http_session s WHERE s.user_id = p_user_id;
    END IF;

    -- Payloads that could never be applied: filed under the person, or naming them.
    UPDATE dead_letter d
    SET key = NULL, value = NULL, headers = '[]', org_id = NULL, user_id = NULL,
        message = 'erased', erased_at = engagement_now(),
        published_at = coalesce(d.published_at, engagement_now())
    WHERE d.erased_at IS NULL AND (
        (d.user_id = p_user_id AND (d.org_id = p_org_id OR (is_last AND d.org_id IS NULL)))
        OR ((mentions_id(d.key, p_user_id) OR mentions_id(d.value, p_user_id))
            AND (is_last OR mentions_id(d.key, p_org_id) OR mentions_id(d.value, p_org_id))));
    GET DIAGNOSTICS touched = ROW_COUNT;
    removed := counts || jsonb_build_object('dead_letters', touched);
END
$$;

-- The part of erase_member for a member who is there: facts, result, and the way into both
-- histories. What was recorded later than the erasure stays, for a member who begins anew.
CREATE FUNCTION erase_facts(
    gone member, p_erased_at timestamptz, last_revision bigint, token text
) RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    attendances bigint;
    rsvps       bigint;
    memberships bigint;
    changes     bigint;
    actions     bigint;
    fresh_id    bigint;
BEGIN
    DELETE FROM attendance_fact f
    WHERE f.member_id = gone.member_id AND f.recorded_at <= p_erased_at;
    GET DIAGNOSTICS attendances = ROW_COUNT;
    DELETE FROM rsvp_fact f WHERE f.member_id = gone.member_id AND f.recorded_at <= p_erased_at;
    GET DIAGNOSTICS rsvps = ROW_COUNT;
    DELETE FROM membership_fact f
    WHERE f.member_id = gone.member_id AND f.recorded_at <= p_erased_at;
    GET DIAGNOSTICS memberships = ROW_COUNT;

    -- The ids of changes were made from the user's id.
    UPDATE engagement_level_history h SET user_id = token, id = gen_random_uuid()
    WHERE h.member_id = gone.member_id;
    GET DIAGNOSTICS changes = ROW_COUNT;
    UPDATE engagement_override_history h SET user_id = token, notes = NULL
    WHERE h.engagement_id = gone.member_id;
    GET DIAGNOSTICS actions = ROW_COUNT;

    DELETE FROM engagement e WHERE e.member_id = gone.member_id;
    DELETE FROM member m WHERE m.member_id = gone.member_id;
    IF EXISTS (SELECT FROM membership_fact f WHERE f.member_id = gone.member_id)
            OR EXISTS (SELECT FROM attendance_fact f WHERE f.member_id = gone.member_id)
            OR EXISTS (SELECT FROM rsvp_fact f WHERE f.member_id = gone.member_id) THEN
        INSERT INTO member (org_id, user_id, accept_after)
        VALUES (gone.org_id, gone.user_id, p_erased_at) RETURNING member_id INTO fresh_id;
        INSERT INTO engagement (member_id, org_id, revision)
        VALUES (fresh_id, gone.org_id, last_revision);
        UPDATE membership_fact f SET member_id = fresh_id WHERE f.member_id = gone.member_id;
        UPDATE attendance_fact f SET member_id = fresh_id WHERE f.member_id = gone.member_id;
        UPDATE rsvp_fact f SET member_id = fresh_id WHERE f.member_id = gone.member_id;
        INSERT INTO due_member (member_id, cause) VALUES (fresh_id, 'signals');
    END IF;
    RETURN jsonb_build_object(
        'attendances', attendances, 'rsvps', rsvps, 'memberships', memberships,
        'level_changes', changes, 'override_actions', actions);
END
$$;

-- For the API: the organisation that it was let into, at the database's time.
CREATE FUNCTION erase_member_here(
    p_user_id text, p_revision bigint, p_memory interval,
    OUT was_known boolean, OUT removed jsonb
)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF coalesce(engagement_org(), '') = '' THEN
        RAISE EXCEPTION 'no organisation is set' USING ERRCODE = 'insufficient_privilege';
    END IF;
    SELECT e.was_known, e.removed INTO was_known, removed
    FROM erase_member(engagement_org(), p_user_id, engagement_now(), p_revision, p_memory) e;
END
$$;

REVOKE ALL ON FUNCTION
    erase_member(text, text, timestamptz, bigint, interval),
    erase_facts(member, timestamptz, bigint, text),
    erase_member_here(text, bigint, interval)
    FROM PUBLIC;

-- A new owner must be allowed to create in the schema for the moment of the change.
GRANT CREATE ON SCHEMA public TO engagement_eraser;
ALTER FUNCTION erase_member(text, text, timestamptz, bigint, interval) OWNER TO engagement_eraser;
ALTER FUNCTION erase_facts(member, timestamptz, bigint, text) OWNER TO engagement_eraser;
ALTER FUNCTION erase_member_here(text, bigint, interval) OWNER TO engagement_eraser;
REVOKE CREATE ON SCHEMA public FROM engagement_eraser;

SET LOCAL ROLE engagement_eraser;
GRANT EXECUTE ON FUNCTION erase_member(text, text, timestamptz, bigint, interval)
    TO engagement_worker;
GRANT EXECUTE ON FUNCTION erase_member_here(text, bigint, interval) TO engagement_api;
RESET ROLE;
