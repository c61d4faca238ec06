-- What is read as a stream. Times are RFC 3339; raw_payload keeps its JSON text.
CREATE UNBOUNDED EXTERNAL TABLE engagement_events (
  id BIGINT, content_id VARCHAR, user_id VARCHAR, event_type VARCHAR,
  event_ts TIMESTAMP, duration_ms BIGINT, device VARCHAR, raw_payload VARCHAR
) STORED AS KAFKA LOCATION 'engagement_events' OPTIONS (
  'brokers' '${env:KAFKA_BROKERS:-localhost:9092}', 'format' 'json', 'key' 'content_id', 'partitions' '4',
  'watermark.column' 'event_ts', 'watermark.delay' '5s', 'start' 'earliest');
