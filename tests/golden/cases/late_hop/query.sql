-- A row that is too late for one of its windows is counted in those that are open; it is late when the last one is final.
CREATE EXTERNAL TABLE result (window_end TIMESTAMP, content_id VARCHAR, n BIGINT)
STORED AS PRINT LOCATION 'terminal';

INSERT INTO result
SELECT window_end, content_id, count(*)
FROM hop(engagement_events, event_ts, INTERVAL '30 seconds', INTERVAL '1 minute')
GROUP BY window_start, window_end, content_id;
