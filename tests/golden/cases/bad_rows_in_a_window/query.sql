CREATE EXTERNAL TABLE result (window_end TIMESTAMP, n BIGINT, total BIGINT)
STORED AS PRINT LOCATION 'terminal';

INSERT INTO result
SELECT window_end, count(*), sum(CAST(device AS BIGINT))
FROM tumble(engagement_events, event_ts, INTERVAL '1 minute')
GROUP BY window_start, window_end;
