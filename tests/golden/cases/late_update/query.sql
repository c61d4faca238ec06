-- What a final window has shown stays: the late row changes nothing.
CREATE EXTERNAL TABLE result (k VARCHAR, n BIGINT)
STORED AS REDIS LOCATION 'result' OPTIONS ('url' 'redis://localhost', 'type' 'hash', 'key' 'k');

INSERT INTO result
SELECT content_id || '@' || to_char(window_start, '%H:%M'), count(*)
FROM tumble(engagement_events, event_ts, INTERVAL '1 minute')
GROUP BY window_start, window_end, content_id;
