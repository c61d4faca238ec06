-- The slower partition holds the watermark, and a window is final when the watermark is exactly at its end.
CREATE EXTERNAL TABLE result (window_end TIMESTAMP, content_id VARCHAR, n BIGINT)
STORED AS PRINT LOCATION 'terminal';

INSERT INTO result
SELECT window_end, content_id, count(*)
FROM tumble(engagement_events, event_ts, INTERVAL '1 minute')
GROUP BY window_start, window_end, content_id;
