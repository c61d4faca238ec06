-- Each event with its content's title, type and length. A view, shared by the queries below.
CREATE VIEW enriched AS
SELECT e.*, c.title, c.content_type, c.length_seconds,
       e.duration_ms / 1000.0 AS engagement_seconds,
       round(e.duration_ms / 1000.0 / nullif(c.length_seconds, 0), 2) AS engagement_pct
FROM engagement_events e LEFT JOIN content c ON e.content_id = c.id;
