CREATE EXTERNAL TABLE result (window_end TIMESTAMP, content_id VARCHAR, plays BIGINT, web_ms BIGINT, users BIGINT)
STORED AS PRINT LOCATION 'terminal';

INSERT INTO result
SELECT window_end, content_id, count(*) FILTER (WHERE event_type = 'play'), sum(duration_ms) FILTER (WHERE device = 'web'),
       count(DISTINCT user_id) FILTER (WHERE event_type <> 'click')
FROM tumble(engagement_events, event_ts, INTERVAL '1 minute')
GROUP BY window_start, window_end, content_id;
