CREATE EXTERNAL TABLE result (window_end TIMESTAMP, content_id VARCHAR, n BIGINT, seconds DOUBLE)
STORED AS PRINT LOCATION 'terminal';

INSERT INTO result
SELECT window_end, content_id, count(*), sum(engagement_seconds)
FROM hop(enriched, event_ts, INTERVAL '20 seconds', INTERVAL '1 minute')
GROUP BY window_start, window_end, content_id;
