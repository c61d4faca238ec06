CREATE EXTERNAL TABLE result (window_end TIMESTAMP, title VARCHAR, content_type VARCHAR, n BIGINT)
STORED AS PRINT LOCATION 'terminal';

-- Contents that are missing, and columns that are NULL, are one group.
INSERT INTO result
SELECT window_end, title, content_type, count(*)
FROM tumble(enriched, event_ts, INTERVAL '1 minute')
GROUP BY window_start, window_end, title, content_type;
