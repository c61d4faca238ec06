CREATE EXTERNAL TABLE result (window_start TIMESTAMP, window_end TIMESTAMP, device VARCHAR, n BIGINT, mean DOUBLE, contents BIGINT)
STORED AS PRINT LOCATION 'terminal';

-- Panes of 5 seconds, the greatest that divides both.
INSERT INTO result
SELECT window_start, window_end, device, count(*), avg(duration_ms), count(DISTINCT content_id)
FROM hop(engagement_events, event_ts, INTERVAL '25 seconds', INTERVAL '1 minute')
GROUP BY window_start, window_end, device;
