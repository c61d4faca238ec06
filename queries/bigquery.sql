-- Every enriched event as Parquet that BigQuery loads, by day and hour.
INSERT INTO bigquery_output
SELECT id, content_id, user_id, event_type, event_ts, duration_ms, device, raw_payload, title, content_type, length_seconds,
       engagement_seconds, engagement_pct, CAST(event_ts AS DATE) AS dt, CAST(date_part('hour', event_ts) AS BIGINT) AS hour
FROM enriched;
