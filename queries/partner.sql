-- Every enriched event to the partner's system.
INSERT INTO partner
SELECT id, content_id, user_id, event_type, event_ts, duration_ms, device, raw_payload, title, content_type, length_seconds,
       engagement_seconds, engagement_pct
FROM enriched;
