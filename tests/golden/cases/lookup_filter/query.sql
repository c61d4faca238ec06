CREATE EXTERNAL TABLE result (id BIGINT, title VARCHAR, kind VARCHAR)
STORED AS PRINT LOCATION 'terminal';

INSERT INTO result
SELECT id, title, CASE WHEN engagement_pct >= 0.5 THEN 'long' WHEN engagement_pct IS NULL THEN 'unknown' ELSE 'short' END
FROM enriched WHERE (content_type = 'video' OR title IS NULL) AND event_type <> 'click';
