"""The measuring part of scripts/wal, whose head says what is measured; that script starts the servers. Tables go to stdout."""
import json, multiprocessing, os, signal, statistics, subprocess, sys, time

import psycopg

from wal_envelopes import envelopes
from wal_readers import (DATABASE, LIMIT_S, SOCKETS, Debezium, Failed, Falaj, Floor, Reader, end_of, newest_id, records, row_id, say, sql,
                         table, wait_for)

ROWS, ROUNDS, SECONDS = (int(os.environ[f"WAL_{name}"]) for name in ("ROWS", "ROUNDS", "LATENCY_SECONDS"))
PER_TRANSACTION = 1000  # rows, of what waits in the WAL
RATE, RATE_PER_TRANSACTION = 5000, 10  # rows a second, and in a transaction, while latency is measured
WARM_DRAIN_ROWS = 20_000  # in a round that is not counted: the broker is a JVM, too, and makes what transactions need at the first
WARM_ROWS, WARM_PACED_ROWS = 60_000, 150_000  # not counted of latency: at once, so that a JVM compiles what it needs; then at the rate
KILL_AT = 0.4  # the share of the rows that a consumer has seen when the crash comes

def load(rows):
    """Puts rows into the WAL, in haste, which does not make them other rows, and gives the WAL's end."""
    sql(f"CALL load_events({rows}, {PER_TRANSACTION})", options="-c statement_timeout=30min -c synchronous_commit=off")
    sql("CHECKPOINT")  # now, and not while a reader is measured
    return sql("SELECT pg_current_wal_flush_lsn()::text")[0][0]

# --- drain
FIGURES = ["changes/s", "CPU µs a change", "with the start", "peak MB", "first record ms", "whole s", "bytes a record"]

def drain_to_topic(reader, rows, _):
    reader.start()
    at_first = wait_for(f"{reader.name}'s first record", lambda: reader.alive() or end_of(reader.topic), pause_s=0.002)
    first_s, first_cpu_s = time.time() - reader.start_time, reader.cpu_s()
    there = lambda: reader.alive() or (end_of(reader.topic) >= rows and newest_id(reader.topic) >= rows)
    wait_for(f"{reader.name}'s last record", there, LIMIT_S + rows / 1000)
    whole_s, cpu_s, peak_mb = time.time() - reader.start_time, reader.cpu_s(), reader.peak_mb()
    missing, doubles, span_s, value_bytes = reader.count(rows)
    if missing or doubles:
        raise Failed(f"{reader.name}: {missing} of {rows} rows are missing, {doubles} records are double")
    # A JVM's start costs seconds of CPU, whatever comes after it, so both are told. Rows that all come at once have only the second.
    running_us = (cpu_s - first_cpu_s) / (rows - at_first) * 1e6 if at_first < rows / 2 else None
    return [rows / span_s, running_us, cpu_s / rows * 1e6, peak_mb, first_s * 1e3, whole_s, value_bytes]

def drain_to_nothing(reader, rows, wal_end):
    reader.command += ["--endpos", wal_end]
    reader.start()
    peaks_mb = []

    def ended():  # without waiting for it, so that its CPU can still be read
        peaks_mb.append(reader.peak_mb())
        return os.waitid(os.P_PID, reader.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)

    wait_for(reader.name, ended, LIMIT_S + rows / 1000, 0.01)
    whole_s, cpu_us = time.time() - reader.start_time, reader.cpu_s() / rows * 1e6
    reached = sql("SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s", wal_end, reader.slot)
    if reader.process.wait() != 0 or not reached[0][0]:
        raise Failed(f"{reader.name} ended before the WAL's end: {(reader.folder / 'log').read_text()}")
    return [rows / whole_s, cpu_us, cpu_us, max(peaks_mb), None, whole_s, None]

def drain():
    makers = [Debezium, Falaj, Floor, lambda job: Falaj(job, "falaj socket", SOCKETS), lambda job: Floor(job, "floor socket", SOCKETS)]
    figures = {}
    for turn in range(ROUNDS + 1):
        sql("TRUNCATE engagement_events")
        readers, first = [make(f"drain {turn}") for make in makers], turn % len(makers)
        rows = ROWS if turn else min(ROWS, WARM_DRAIN_ROWS)
        wal_end = load(rows)
        for reader in readers[first:] + readers[:first]:
            done = (drain_to_topic if reader.topic else drain_to_nothing)(reader, rows, wal_end)
            reader.leave()
            if turn:
                figures.setdefault(reader.name, []).append([turn, *done])
                say(f"round {turn}: {reader.name}, {done[0]:.0f} changes/s")
    median = lambda values: None if None in values else statistics.median(values)
    middle = {name: [median(column) for column in zip(*rounds)][1:] for name, rounds in figures.items()}
    table(f"drain: {ROWS} rows, {PER_TRANSACTION} a transaction", ["reader", "round", *FIGURES],
          [[name, *row] for name, rounds in sorted(figures.items()) for row in [*rounds, ["median", *middle[name]]]])
    pairs = [("falaj", "debezium"), ("falaj", "floor"), ("falaj socket", "floor socket"), ("falaj socket", "falaj")]
    ratios = [[over and under and over / under for over, under in zip(middle[a][:4], middle[b])] for a, b in pairs]
    table("ratios of the medians", ["", *FIGURES[:4]], [[f"{a} / {b}", *row] for (a, b), row in zip(pairs, ratios)])

# --- latency
def send(first, rows):
    """Rows at the rate, each with the time at which it was due: what waits for a slow commit counts as late, too."""
    trips_ms, begin = [], time.time()
    insert = "INSERT INTO engagement_events SELECT * FROM made_events(%s, %s, jsonb_build_object('due', %s::float8))"
    with psycopg.connect(DATABASE, autocommit=True, options="-c statement_timeout=60s") as connection:
        for sent in range(0, rows, RATE_PER_TRANSACTION):
            due = begin + sent / RATE
            time.sleep(max(0, due - time.time()))
            began = time.time()
            connection.execute(insert, (first + sent, first + sent + RATE_PER_TRANSACTION - 1, due))
            trips_ms.append((time.time() - began) * 1e3)
    return trips_ms

def receive(topic, rows, pipe):
    """In a process of its own, so that sender and consumer do not wait for each other. It parses when all is there."""
    arrived, latencies_ms = [], []
    for record in filter(None, records(topic)):
        arrived.append((time.time(), record.value()))
        if len(arrived) in (WARM_ROWS, WARM_ROWS + WARM_PACED_ROWS):
            pipe.send("all that was sent is here")
        if len(arrived) == rows:
            break
    for expected, (at, value) in enumerate(arrived, 1):
        row = json.loads(value)
        row = row.get("after", row)
        if row["id"] != expected:
            raise Failed(f"{topic}: record {expected} is row {row['id']}")
        if expected > WARM_ROWS + WARM_PACED_ROWS:
            latencies_ms.append((at - json.loads(row["raw_payload"])["due"]) * 1e3)
    pipe.send(sorted(latencies_ms))

def latency():
    figures, context = [], multiprocessing.get_context("spawn")
    part = lambda values, share: values[min(len(values) - 1, int(share * len(values)))]
    for make in (lambda: Falaj("latency"), lambda: Debezium("latency", "debezium, 10 ms", poll_interval_ms=10),
                 lambda: Debezium("latency", "debezium, 1 ms, linger 0", poll_interval_ms=1, producer_linger_ms=0)):
        sql("TRUNCATE engagement_events")
        reader, warm, (here, there) = make(), WARM_ROWS + WARM_PACED_ROWS, context.Pipe(False)
        # What goes wrong there is in its traceback.
        consumer = context.Process(target=receive, args=(reader.topic, warm + SECONDS * RATE, there), daemon=True)
        reader.start()
        consumer.start()
        there.close()
        heard = lambda what: wait_for(f"{reader.name}'s {what}", lambda: reader.alive() or here.poll(0.5)) and here.recv()
        load(WARM_ROWS)
        heard("warm-up")
        send(WARM_ROWS + 1, WARM_PACED_ROWS)
        heard("warm-up")
        began, cpu_s = time.time(), reader.cpu_s()
        trips_ms = sorted(send(warm + 1, SECONDS * RATE))
        cores = (reader.cpu_s() - cpu_s) / (time.time() - began)
        latencies_ms, peak_mb = heard("last row"), reader.peak_mb()
        consumer.join(LIMIT_S)
        reader.leave()
        figures.append([reader.name, *(part(latencies_ms, share) for share in (0.5, 0.95, 0.99, 1)),
                        part(trips_ms, 0.5), part(trips_ms, 0.99), cores * 100, peak_mb])
        say(f"{reader.name}: p50 {figures[-1][1]:.1f} ms")
    table(f"latency: {RATE} rows/s for {SECONDS} s, {RATE_PER_TRANSACTION} a transaction; ms from when a row was due",
          ["reader", "p50", "p95", "p99", "max", "commit alone p50", "p99", "CPU % of a core", "peak MB"], figures)

# --- crash
def crash():
    figures = []
    for make in (Falaj, Debezium):
        sql("TRUNCATE engagement_events")
        reader = make("crash")
        load(ROWS)
        reader.start()
        seen, killed, at_kill, new_ms = bytearray(ROWS + 1), None, 0, None
        limit = time.monotonic() + 2 * LIMIT_S + ROWS / 1000
        for record in filter(None, records(reader.topic, alive=reader.alive)):
            if time.monotonic() > limit:
                raise Failed(f"{reader.name} does not come to the last row")
            id = row_id(record)
            if killed is None and id >= ROWS * KILL_AT:
                killed = time.time()
                reader.stop(signal.SIGKILL)
                reader.start()
                end = end_of(reader.topic)
            if killed and record.offset() < end:
                at_kill = id  # it was committed before the kill, though it comes only now
            elif killed and not seen[id] and new_ms is None:
                new_ms = (time.time() - killed) * 1e3
            seen[id] = 1
            if id == ROWS:
                break
        missing, doubles, *_ = reader.count(ROWS)
        reader.leave()
        figures.append([reader.name, at_kill, doubles, missing, new_ms])
        if missing or new_ms is None or (doubles and make is not Debezium):
            raise Failed(f"{reader.name}, killed at row {at_kill} of {ROWS}: {missing} are missing, {doubles} double, {new_ms} ms")
    table(f"crash: SIGKILL within {ROWS} rows, and a new start at once",
          ["reader", "rows there at the kill", "double", "missing", "ms from the kill to the first new row"], figures)

# --- all of it
JOBS = {"drain": drain, "latency": latency, "crash": crash, "envelopes": envelopes}

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        for job in os.environ["WAL_JOBS"].split(","):
            JOBS[job]()
    except (Failed, psycopg.Error, subprocess.TimeoutExpired) as why:
        sys.exit(f"scripts/wal: {why}")
    finally:  # the slots, topics and data of a job that failed go with the servers, which scripts/wal deletes
        for process in Reader.started:
            process.kill()
            process.wait()
