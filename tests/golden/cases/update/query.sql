CREATE EXTERNAL TABLE result (k VARCHAR, n BIGINT, total BIGINT)
STORED AS REDIS LOCATION 'result' OPTIONS ('url' 'redis://localhost', 'type' 'hash', 'key' 'k', 'emit' 'update');

-- A row that leaves the result, at its third event, is deleted.
INSERT INTO result
SELECT content_id || '@' || to_char(window_start, '%H:%M'), count(*), sum(duration_ms)
FROM tumble(engagement_events, event_ts, INTERVAL '1 minute')
WHERE content_id IS NOT NULL
GROUP BY window_start, window_end, content_id
HAVING count(*) < 3;
