CREATE EXTERNAL TABLE result (window_end TIMESTAMP, n BIGINT, total BIGINT)
STORED AS PRINT LOCATION 'terminal';

-- No group but the window: a window without events has no row.
INSERT INTO result
SELECT window_end, count(*), sum(duration_ms)
FROM tumble(engagement_events, event_ts, INTERVAL '1 minute')
GROUP BY window_start, window_end;
