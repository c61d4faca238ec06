CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE engagement_demo (
  id bigint PRIMARY KEY, content_id text, user_id text, event_type text, event_ts timestamptz, duration_ms int, device text,
  raw_payload jsonb);
CREATE TABLE types_demo (
  id int PRIMARY KEY, b bool, i2 smallint, i8 bigint, r real, d double precision, n numeric(12,4), n_free numeric, n0 numeric(10,0),
  money_c money, c char(5), v varchar(20), t text, by bytea, dt date, ti time, ti3 time(3), titz timetz, ts timestamp, ts0 timestamp(0),
  ts3 timestamp(3), tstz timestamptz, iv interval, u uuid, j json, jb jsonb, e mood, ia int[], ta text[], na numeric(6,2)[],
  tsa timestamptz[], ip inet, ci cidr, ma macaddr, bt bit(1), bt8 bit(8), vb varbit(10), pt point, r4 int4range, trng tstzrange, x xml,
  o oid, tsv tsvector, df text DEFAULT 'dflt', nn int NOT NULL DEFAULT 7);
CREATE TABLE toast_demo (id int PRIMARY KEY, small text, big text);
ALTER TABLE toast_demo ALTER big SET STORAGE EXTERNAL;
CREATE TABLE toast_full (id int PRIMARY KEY, small text, big text);
ALTER TABLE toast_full ALTER big SET STORAGE EXTERNAL;
ALTER TABLE toast_full REPLICA IDENTITY FULL;
CREATE TABLE full_demo (id int PRIMARY KEY, a text, n int);
ALTER TABLE full_demo REPLICA IDENTITY FULL;
CREATE TABLE nopk_demo (a text, n int);
ALTER TABLE nopk_demo REPLICA IDENTITY FULL;
INSERT INTO full_demo VALUES (100, 'pre-snapshot', 1);
INSERT INTO full_demo VALUES (101, 'pre-snapshot last', 1);
