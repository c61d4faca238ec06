-- The leaderboard: the contents with the most engagements in the last 10 minutes.
INSERT INTO top_content
SELECT content_id, count(*) AS engagements
FROM hop(enriched, event_ts, INTERVAL '1 second', INTERVAL '10 minutes')
GROUP BY window_start, window_end, content_id
ORDER BY engagements DESC, content_id LIMIT 100;
