-- A row that SQL fails for is a dead letter, and its neighbours go through.
CREATE EXTERNAL TABLE result (id BIGINT, n BIGINT)
STORED AS PRINT LOCATION 'terminal';

INSERT INTO result
SELECT id, CAST(device AS BIGINT) FROM engagement_events;
