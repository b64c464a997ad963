-- The clocks of a member are those of the level that was shown when it was evaluated. Once an override
-- has expired and nobody has evaluated the member since, they say nothing any more.

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
       CASE WHEN NOT o.lapsed THEN e.next_change_at END AS next_change_at,
       CASE WHEN NOT o.lapsed THEN e.next_level_change_at END AS next_level_change_at,
       CASE WHEN NOT o.lapsed THEN e.next_level END AS next_level,
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
               AND e.override_expires_at IS NOT NULL AND e.override_expires_at <= engagement_now()
) AS o (active, lapsed)
LEFT JOIN explanation x
    ON x.explanation_id = CASE WHEN o.active THEN e.override_explanation_id ELSE e.explanation_id END
LEFT JOIN engagement_confirmation c ON c.block = e.member_id >> 18
LEFT JOIN engagement_confirmation_exception cx
    ON cx.block = e.member_id >> 18 AND cx.org_id = e.org_id
WHERE e.computed_at IS NOT NULL;
