-- Rows that are at most 5 seconds old when they are read; a restart reads them again at the same time.
CREATE EXTERNAL TABLE result (window_end TIMESTAMP, content_id VARCHAR, n BIGINT, fresh BIGINT)
STORED AS PRINT LOCATION 'terminal';

INSERT INTO result
SELECT window_end, content_id, count(*), count(*) FILTER (WHERE event_ts >= now() - INTERVAL '5 seconds')
FROM tumble(engagement_events, event_ts, INTERVAL '1 minute')
GROUP BY window_start, window_end, content_id;
