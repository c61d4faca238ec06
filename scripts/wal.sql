-- What scripts/wal prepares in its cluster: nothing that works beside a reader in one round and not in another, and the rows to read,
-- in the table that falaj generate makes. made_events adds `more` to the payload.
ALTER SYSTEM SET max_wal_size = '16GB';
ALTER SYSTEM SET checkpoint_timeout = '1d';
ALTER SYSTEM SET autovacuum = off;
SELECT pg_reload_conf();

CREATE TABLE engagement_events (
  id bigint PRIMARY KEY, content_id text NOT NULL, user_id text NOT NULL, event_type text NOT NULL,
  event_ts timestamptz NOT NULL, duration_ms bigint, device text NOT NULL, raw_payload jsonb NOT NULL);
CREATE PUBLICATION wal_measured FOR TABLE engagement_events;

CREATE FUNCTION made_events(first bigint, last bigint, more jsonb) RETURNS SETOF engagement_events LANGUAGE sql AS $$
  SELECT i, 'c' || lpad((i * 7919 % 5000)::text, 6, '0'), 'u' || lpad((i * 104729 % 10000000)::text, 7, '0'),
    (array['play', 'pause', 'finish', 'click'])[1 + i % 4], timestamptz '2026-01-01 00:00:00+00' + i * interval '1 ms',
    i * 37 % 100000, (array['ios', 'android', 'web', 'tv'])[1 + i / 4 % 4],
    jsonb_build_object('session', md5(i::text), 'app_version', '5.3.' || i % 3, 'network', 'wifi') || more
  FROM generate_series(first, last) i
$$;

CREATE PROCEDURE load_events(rows int, per_transaction int) LANGUAGE plpgsql AS $$
BEGIN
  FOR at IN 1..rows BY per_transaction LOOP
    INSERT INTO engagement_events SELECT * FROM made_events(at, least(at + per_transaction - 1, rows), '{}');
    COMMIT;
  END LOOP;
END
$$;
