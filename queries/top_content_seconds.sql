-- The contents with the most time engaged in the last 10 minutes.
INSERT INTO top_content_seconds
SELECT content_id, sum(engagement_seconds) AS engaged_seconds
FROM hop(enriched, event_ts, INTERVAL '1 second', INTERVAL '10 minutes')
GROUP BY window_start, window_end, content_id
HAVING sum(engagement_seconds) > 0
ORDER BY engaged_seconds DESC, content_id LIMIT 100;
