CREATE EXTERNAL TABLE result (window_end TIMESTAMP, n BIGINT)
STORED AS PRINT LOCATION 'terminal';

-- Malformed records go to the dead letters once, and their neighbours are counted.
INSERT INTO result
SELECT window_end, count(id)
FROM tumble(engagement_events, event_ts, INTERVAL '1 minute')
GROUP BY window_start, window_end;
