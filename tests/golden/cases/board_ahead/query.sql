-- One clock that runs ahead cannot take the board over: T is never later than the intent's time.
CREATE EXTERNAL TABLE result (content_id VARCHAR, n BIGINT)
STORED AS REDIS LOCATION 'result' OPTIONS ('url' 'redis://localhost', 'member' 'content_id', 'score' 'n');

INSERT INTO result
SELECT content_id, count(*) AS n
FROM hop(engagement_events, event_ts, INTERVAL '1 second', INTERVAL '1 minute')
GROUP BY window_start, window_end, content_id
ORDER BY n DESC, content_id LIMIT 10;
