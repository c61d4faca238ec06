CREATE EXTERNAL TABLE result (window_end TIMESTAMP, device VARCHAR, middle DOUBLE, clicked BOOLEAN, types VARCHAR, vp DOUBLE, contents BIGINT, last_type VARCHAR)
STORED AS PRINT LOCATION 'terminal';

-- Aggregates whose state is more than a number. The last digits of a variance depend on how epochs cut the rows.
INSERT INTO result
SELECT window_end, device, median(CAST(duration_ms AS DOUBLE)), bool_or(event_type = 'click'), string_agg(event_type, ',' ORDER BY id),
       round(var_pop(duration_ms), 3), count(DISTINCT content_id), max(event_type)
FROM tumble(engagement_events, event_ts, INTERVAL '1 minute')
GROUP BY window_start, window_end, device;
