-- The view by itself: missing contents, NULL keys, lengths of NULL and 0.
CREATE EXTERNAL TABLE result (id BIGINT, content_id VARCHAR, user_id VARCHAR, event_type VARCHAR, event_ts TIMESTAMP, duration_ms BIGINT,
  device VARCHAR, raw_payload VARCHAR, title VARCHAR, content_type VARCHAR, length_seconds BIGINT, engagement_seconds DOUBLE,
  engagement_pct DOUBLE)
STORED AS PRINT LOCATION 'terminal';

INSERT INTO result
SELECT * FROM enriched;
