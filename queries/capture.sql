-- Where events are born: the rows of a table in Postgres, those that are there first, then the new ones from the WAL. Each goes into the
-- topic once, in the order of the commits. Who has the events in Kafka already takes this file away, and loses nothing else.
CREATE UNBOUNDED EXTERNAL TABLE engagement_changes (
  id BIGINT, content_id VARCHAR, user_id VARCHAR, event_type VARCHAR,
  event_ts TIMESTAMP, duration_ms BIGINT, device VARCHAR, raw_payload VARCHAR
) STORED AS POSTGRES LOCATION 'public.engagement_events' OPTIONS ('url' '${env:DATABASE_URL}', 'snapshot' 'initial');

INSERT INTO engagement_events SELECT * FROM engagement_changes;
