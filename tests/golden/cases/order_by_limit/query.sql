CREATE EXTERNAL TABLE result (window_end TIMESTAMP, content_id VARCHAR, n BIGINT)
STORED AS PRINT LOCATION 'terminal';

-- LIMIT applies to each window.
INSERT INTO result
SELECT window_end, content_id, count(*) AS n
FROM tumble(engagement_events, event_ts, INTERVAL '1 minute')
GROUP BY window_start, window_end, content_id
ORDER BY n DESC, content_id NULLS FIRST LIMIT 2;
