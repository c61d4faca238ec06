-- now() and its like answer the intent's time: two epochs, two times, two days. Of 1 and 2 only the first is within the hour.
CREATE EXTERNAL TABLE result (id BIGINT, at TIMESTAMP, day DATE)
STORED AS PRINT LOCATION 'terminal';

INSERT INTO result
SELECT id, now(), current_date FROM engagement_events WHERE event_ts > now() - INTERVAL '1 hour';
