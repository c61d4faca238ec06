CREATE EXTERNAL TABLE result (window_end TIMESTAMP, what VARCHAR, total BIGINT)
STORED AS PRINT LOCATION 'terminal';

-- A filter over the lookup's columns before the window, and a group by an expression.
INSERT INTO result
SELECT window_end, upper(title) || '/' || device, sum(duration_ms)
FROM hop(enriched, event_ts, INTERVAL '1 minute', INTERVAL '1 minute')
WHERE event_type <> 'click' AND content_type = 'video'
GROUP BY window_start, window_end, upper(title) || '/' || device;
