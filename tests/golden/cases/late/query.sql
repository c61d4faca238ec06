-- Lateness is judged by the watermark before the epoch: 3 letters in the third epoch and none for a row that WHERE leaves out;
-- the row of 10:01:30 comes with the one that ends its window and is counted, the row of 10:01:45 comes an epoch later.
CREATE EXTERNAL TABLE result (window_end TIMESTAMP, content_id VARCHAR, n BIGINT)
STORED AS PRINT LOCATION 'terminal';

INSERT INTO result
SELECT window_end, content_id, count(*)
FROM tumble(engagement_events, event_ts, INTERVAL '1 minute')
WHERE event_type <> 'click'
GROUP BY window_start, window_end, content_id;
