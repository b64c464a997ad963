-- Of a dead letter it is looked first whether the id stands in it at all, without calling a function:
-- erasing many members goes over all letters for each.

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
    id_bytes   CONSTANT bytea := convert_to(p_user_id, 'UTF8');
    id_form    CONSTANT text := '^[A-Za-z0-9][A-Za-z0-9._@|-]{0,127}$';
    gone       member%ROWTYPE;
    known_until timestamptz;
    last_until timestamptz;
    last       bigint;
    counts     jsonb := '{}';
    touched    bigint;
    authored   bigint;
    is_last    boolean;
BEGIN
    IF p_org_id !~ id_form OR p_user_id !~ id_form THEN
        RAISE EXCEPTION 'no ids of a member' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pg_advisory_xact_lock(erasure_lock());
    SELECT e.erased_at INTO known_until FROM erasure e WHERE e.subject = p_subject;
    was_known := FOUND;
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
    IF known_until >= p_erased_at THEN
        removed := counts || '{"authorships": 0, "dead_letters": 0}';
        RETURN;
    END IF;

    -- The person as author.
    UPDATE engagement_override_history h SET performed_by = token
    WHERE h.org_id = p_org_id AND h.performed_by = p_user_id;
    GET DIAGNOSTICS authored = ROW_COUNT;
    UPDATE thresholds t SET author = token WHERE t.org_id = p_org_id AND t.author = p_user_id;
    GET DIAGNOSTICS touched = ROW_COUNT;
    authored := authored + touched;
    UPDATE engagement e SET overridden_by = token
    WHERE e.org_id = p_org_id AND e.override_level IS NOT NULL AND e.overridden_by = p_user_id;
    counts := counts || jsonb_build_object('authorships', authored);

    -- What belongs to the person in every organisation goes with the last one, up to the latest
    -- erasure in any of them: so it makes no difference which of them arrives last.
    INSERT INTO erasure AS e (subject, erased_at, forget_at)
    VALUES (erasure_subject('*:' || p_user_id), p_erased_at, engagement_now() + p_memory)
    ON CONFLICT (subject) DO UPDATE
    SET erased_at = greatest(e.erased_at, excluded.erased_at),
        forget_at = greatest(e.forget_at, excluded.forget_at)
    RETURNING e.erased_at INTO last_until;
    is_last := NOT EXISTS (
        SELECT FROM member m WHERE m.user_id = p_user_id AND (
            EXISTS (SELECT FROM membership_fact f WHERE f.member_id = m.member_id)
            OR EXISTS (SELECT FROM attendance_fact f WHERE f.member_id = m.member_id)
            OR EXISTS (SELECT FROM rsvp_fact f WHERE f.member_id = m.member_id)));
    IF is_last THEN
        DELETE FROM profile_fact f WHERE f.user_id = p_user_id AND f.recorded_at <= last_until;
        GET DIAGNOSTICS touched = ROW_COUNT;
        counts := counts || jsonb_build_object('profile_updates', touched);
        INSERT INTO erasure AS e (subject, erased_at, forget_at)
        VALUES (p_user, last_until, engagement_now() + p_memory)
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
        OR ((position(id_bytes IN d.value) > 0 OR position(id_bytes IN d.key) > 0)
            AND is_letter_about(d, p_org_id, p_user_id, is_last)));
    GET DIAGNOSTICS touched = ROW_COUNT;
    removed := counts || jsonb_build_object('dead_letters', touched);
END
$$;
RESET ROLE;
REVOKE CREATE ON SCHEMA public FROM engagement_eraser;
