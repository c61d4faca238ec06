CREATE EXTERNAL TABLE result (id BIGINT, title VARCHAR, kind VARCHAR)
STORED AS PRINT LOCATION 'terminal';

INSERT INTO result
SELECT e.id, c.title, coalesce(c.content_type, 'none') FROM engagement_events e JOIN content c ON e.content_id = c.id;
