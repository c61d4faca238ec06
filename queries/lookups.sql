-- What is asked by key: the content table in Postgres.
CREATE EXTERNAL TABLE content (
  id VARCHAR, slug VARCHAR, title VARCHAR, content_type VARCHAR, length_seconds BIGINT, publish_ts TIMESTAMP
) STORED AS POSTGRES LOCATION 'public.content' OPTIONS (
  'url' '${env:DATABASE_URL}', 'key' 'id', 'refresh' '30s', 'on_miss' 'fetch');
