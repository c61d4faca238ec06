CREATE EXTERNAL TABLE result (window_start TIMESTAMP, window_end TIMESTAMP, content_id VARCHAR, n BIGINT, timed BIGINT, total BIGINT, mean DOUBLE,
  least BIGINT, greatest BIGINT, spread DOUBLE, users BIGINT)
STORED AS PRINT LOCATION 'terminal';

INSERT INTO result
SELECT window_start, window_end, content_id, count(*), count(duration_ms), sum(duration_ms), avg(duration_ms), min(duration_ms),
       max(duration_ms), round(stddev(duration_ms), 6), count(DISTINCT user_id)
FROM tumble(engagement_events, event_ts, INTERVAL '1 minute')
GROUP BY window_start, window_end, content_id;
