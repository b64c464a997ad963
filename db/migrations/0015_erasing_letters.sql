-- Which dead letters go with an erased member: those that are about that member, not all that have
-- the id somewhere in them. A short id stands in times, in ids of events and of others.

-- The subject that a value names, as {"org_id": ..., "user_id": ...}; null where it is no JSON object,
-- names nobody, or has another form of an id: that may be a slip of the pen.
CREATE FUNCTION letter_subject(value bytea) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    id_form CONSTANT text := '^[A-Za-z0-9][A-Za-z0-9._@|-]{0,127}$';
    body    jsonb;
BEGIN
    body := convert_from(value, 'UTF8')::jsonb;
    RETURN CASE WHEN body ->> 'user_id' ~ id_form AND coalesce(body ->> 'org_id', 'none') ~ id_form
        THEN jsonb_build_object('user_id', body ->> 'user_id', 'org_id', body ->> 'org_id') END;
EXCEPTION WHEN data_exception OR statement_too_complex OR program_limit_exceeded THEN
    RETURN NULL;
END
$$;

-- Whether a dead letter that is not filed under a member is about that member all the same. Where the
-- value says whom it is about, that decides. Else both ids have to stand in it; or, when the person
-- goes altogether and it is filed under nobody, the user's id as a key or as a quoted value.
CREATE FUNCTION is_letter_about(letter dead_letter, p_org_id text, p_user_id text, is_last boolean)
    RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    subject jsonb;
BEGIN
    IF NOT (mentions_id(letter.key, p_user_id) OR mentions_id(letter.value, p_user_id)) THEN
        RETURN false;
    END IF;
    subject := letter_subject(letter.value);
    IF subject IS NOT NULL THEN
        RETURN subject ->> 'user_id' = p_user_id
            AND (subject ->> 'org_id' = p_org_id OR (is_last AND subject ->> 'org_id' IS NULL));
    END IF;
    RETURN mentions_id(letter.key, p_org_id) OR mentions_id(letter.value, p_org_id)
        OR (is_last AND letter.user_id IS NULL
            AND (mentions_id(letter.key, p_user_id) OR quotes_id(letter.value, p_user_id)));
END
$$;

-- Whether an id stands in a text between quotes, and not as the name of a field.
CREATE FUNCTION quotes_id(payload bytea, id text) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN encode(payload, 'escape') ~ ('"' || regexp_replace(id, '([.|])', '\\\1', 'g') || '"(?!\s*:)');
END
$$;

-- Others cannot replace what belongs to engagement_eraser, who may create nothing else.
GRANT CREATE ON SCHEMA public TO engagement_eraser;
SET LOCAL ROLE engagement_eraser;
CREATE OR REPLACE FUNCTION erase_member(
    p_org_id text, p_user_id text, p_erased_at timestamptz, p_revision bigint, p_memory interval,
    OUT was_known boolean, OUT removed jsonb
)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    p_subject  CONSTANT bytea := erasure_subject(p_org_id || ':' || p_user_id);
    p_user     CONSTANT bytea := erasure_subject(p_user_id);
    token      CONSTANT text := 'erased-' || replace(gen_random_uuid()::text, '-', '');
    id_form    CONSTANT text := '^[A-Za-z0-9][A-Za-z0-9._@|-]{0,127}$';
    gone       member%ROWTYPE;
    last       bigint;
    counts     jsonb := '{}';
    touched    bigint;
    is_last    boolean;
BEGIN
    IF p_org_id !~ id_form OR p_user_id !~ id_form THEN
        RAISE EXCEPTION 'no ids of a member' USING ERRCODE = 'invalid_parameter_value';
    END IF;
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

    -- Payloads that could never be applied.
    UPDATE dead_letter d
    SET key = NULL, value = NULL, headers = '[]', org_id = NULL, user_id = NULL,
        message = 'erased', erased_at = engagement_now(),
        published_at = coalesce(d.published_at, engagement_now())
    WHERE d.erased_at IS NULL AND (
        (d.user_id = p_user_id AND (d.org_id = p_org_id OR (is_last AND d.org_id IS NULL)))
        OR is_letter_about(d, p_org_id, p_user_id, is_last));
    GET DIAGNOSTICS touched = ROW_COUNT;
    removed := counts || jsonb_build_object('dead_letters', touched);
END
$$;
RESET ROLE;
REVOKE CREATE ON SCHEMA public FROM engagement_eraser;
