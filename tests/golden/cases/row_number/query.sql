CREATE EXTERNAL TABLE result (window_end TIMESTAMP, content_id VARCHAR, n BIGINT, place BIGINT)
STORED AS PRINT LOCATION 'terminal';

-- The standard spelling of the leaders of each window.
INSERT INTO result
SELECT window_end, content_id, n, place FROM (
  SELECT window_end, content_id, count(*) AS n,
         row_number() OVER (PARTITION BY window_start, window_end ORDER BY count(*) DESC, content_id NULLS FIRST) AS place
  FROM tumble(engagement_events, event_ts, INTERVAL '1 minute')
  GROUP BY window_start, window_end, content_id)
WHERE place <= 2;
