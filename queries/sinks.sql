-- Where results go.
CREATE EXTERNAL TABLE top_content (content_id VARCHAR, engagements BIGINT)
STORED AS REDIS LOCATION 'top_content' OPTIONS (
  'url' '${env:REDIS_URL:-redis://localhost:6379}',
  'type' 'zset', 'member' 'content_id', 'score' 'engagements', 'ttl' '5m');

CREATE EXTERNAL TABLE top_content_seconds (content_id VARCHAR, engaged_seconds DOUBLE)
STORED AS REDIS LOCATION 'top_content_seconds' OPTIONS (
  'url' '${env:REDIS_URL:-redis://localhost:6379}',
  'type' 'zset', 'member' 'content_id', 'score' 'engaged_seconds', 'ttl' '5m');

CREATE EXTERNAL TABLE bigquery_output (
  id BIGINT, content_id VARCHAR, user_id VARCHAR, event_type VARCHAR, event_ts TIMESTAMP, duration_ms BIGINT,
  device VARCHAR, raw_payload VARCHAR, title VARCHAR, content_type VARCHAR, length_seconds BIGINT,
  engagement_seconds DOUBLE, engagement_pct DOUBLE, dt DATE, hour BIGINT
) STORED AS PARQUET LOCATION 'data/bigquery_output/' PARTITIONED BY (dt, hour)
OPTIONS ('roll.size' '128MiB', 'roll.interval' '30s');

CREATE EXTERNAL TABLE partner (
  id BIGINT, content_id VARCHAR, user_id VARCHAR, event_type VARCHAR, event_ts TIMESTAMP, duration_ms BIGINT,
  device VARCHAR, raw_payload VARCHAR, title VARCHAR, content_type VARCHAR, length_seconds BIGINT,
  engagement_seconds DOUBLE, engagement_pct DOUBLE
) STORED AS HTTP LOCATION '${env:PARTNER_URL:-http://localhost:8090/engagements}' OPTIONS ('batch.rows' '500');
