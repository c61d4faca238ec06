"""What the jobs of scripts/wal read with: falaj, Debezium and a reader that throws everything away; and how they look at the result."""
import os, re, shutil, signal, subprocess, sys, time
from pathlib import Path
from urllib.parse import quote

import psycopg
from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

BROKERS, DATABASE, PORT = os.environ["KAFKA_BROKERS"], os.environ["DATABASE_URL"], os.environ["FALAJ_POSTGRES_PORT"]
SOCKETS = os.environ["FALAJ_SERVICES_DIR"] + "/postgres"  # PostgreSQL's Unix socket lies in its data folder
SCRATCH, FALAJ = Path(os.environ["WAL_SCRATCH"]), os.environ["WAL_FALAJ"]
LIMIT_S = 120  # the bound of every wait; one for all rows of a drain has another second for each thousand

COLUMNS = """id BIGINT, content_id VARCHAR, user_id VARCHAR, event_type VARCHAR,
  event_ts TIMESTAMP, duration_ms BIGINT, device VARCHAR, raw_payload VARCHAR"""
CONVERTER = "org.apache.kafka.connect.json.JsonConverter"
DEBEZIUM = {  # of the Connect worker and of the connector, which are both given all of it
    "bootstrap.servers": BROKERS, "listeners": f"http://127.0.0.1:{os.environ['WAL_CONNECT_PORT']}", "plugin.discovery": "service_load",
    "key.converter": CONVERTER, "key.converter.schemas.enable": "false", "value.converter": CONVERTER,
    "value.converter.schemas.enable": "false", "offset.storage.file.filename": "offsets", "offset.flush.interval.ms": "10000",
    "producer.linger.ms": "20", "producer.batch.size": "524288", "producer.buffer.memory": "134217728",
    "connector.class": "io.debezium.connector.postgresql.PostgresConnector", "tasks.max": "1", "plugin.name": "pgoutput",
    "database.hostname": "127.0.0.1", "database.port": PORT, "database.user": "falaj", "database.password": "none",
    "database.dbname": "falaj", "table.include.list": "public.engagement_events", "snapshot.mode": "no_data",
    "publication.name": "wal_measured", "publication.autocreate.mode": "disabled", "max.batch.size": "8192", "max.queue.size": "32768",
}

class Failed(Exception):
    """Why there are no figures."""

def say(text):
    print(f"scripts/wal: {text}", file=sys.stderr, flush=True)

def table(title, head, rows):
    shown = lambda cell: f"{cell:.{0 if cell >= 100 else 2}f}" if isinstance(cell, float) else "–" if cell is None else str(cell)
    print(f"\n{title}\n")
    for row in [head, ["---"] + ["---:"] * (len(head) - 1), *rows]:
        print("| " + " | ".join(map(shown, row)) + " |", flush=True)

def wait_for(what, ready, limit_s=LIMIT_S, pause_s=0.05):
    """Asks until the answer is true, and gives it."""
    end = time.monotonic() + limit_s
    while not (answer := ready()):
        if time.monotonic() > end:
            raise Failed(f"{what} took more than {limit_s:.0f} s")
        time.sleep(pause_s)
    return answer

# --- PostgreSQL and Kafka
def sql(statement, *values, options="-c statement_timeout=30min"):
    """Runs one statement on its own; the rows of its answer, if it has any."""
    with psycopg.connect(DATABASE, autocommit=True, options=options) as connection:
        done = connection.execute(statement, values or None)
        return done.fetchall() if done.description else []

ADMIN = AdminClient({"bootstrap.servers": BROKERS})
CONSUMER = {"bootstrap.servers": BROKERS, "group.id": "wal", "enable.auto.commit": False, "isolation.level": "read_committed",
            "enable.partition.eof": True, "fetch.min.bytes": 1, "fetch.wait.max.ms": 10}
WATCH = Consumer(CONSUMER)

def records(topic, first=0, alive=lambda: None):
    """The records of a topic as they come, only what is committed, and None whenever there are no more for now."""
    consumer = Consumer(CONSUMER)
    consumer.assign([TopicPartition(topic, 0, first)])

    def polled():  # shortly, since Python hears no signal meanwhile; in a list, since a message without a value is as good as False
        alive()
        return [message for message in [consumer.poll(0.5)] if message is not None]

    try:
        while True:
            [message] = wait_for(f"the next record of {topic}", polled, pause_s=0)
            if message.error() is None:
                yield message
            elif message.error().code() == KafkaError._PARTITION_EOF:
                yield None
            else:
                raise Failed(f"{topic} cannot be read: {message.error()}")
    finally:
        consumer.close()

def row_id(record):
    """Of a key such as 7 or {"id":7}."""
    return int(record.key().rpartition(b":")[2].rstrip(b"}"))

def end_of(topic):  # costs the broker nearly nothing: nobody reads the records while a reader is measured
    return WATCH.get_watermark_offsets(TopicPartition(topic, 0), timeout=LIMIT_S, cached=False)[1]

def newest_id(topic):  # ids come in order, so it says how many are there; an offset does not, it counts ends of transactions, too
    return max((row_id(record) for record in iter(records(topic, max(0, end_of(topic) - 5)).__next__, None)), default=0)

# --- the readers: each a process with a slot and topics of its own, and what it needs in a folder of its own
class Reader:
    started, stops_by = [], signal.SIGTERM  # every process that may still run; what ends one
    def __init__(self, job, name, topics):
        self.name, self.slot = name, "wal_" + re.sub("[^a-z0-9]+", "_", f"{job} {name}")
        self.topics, self.folder = [topic.format(self.slot) for topic in topics], SCRATCH / self.slot
        self.topic = self.topics[0] if topics else None
        self.folder.mkdir()
        sql("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", self.slot)
        for topic in self.topics:
            ADMIN.create_topics([NewTopic(topic, 1, 1)])[topic].result(LIMIT_S)
            wait_for(f"topic {topic}", lambda: topic in ADMIN.list_topics(timeout=LIMIT_S).topics)

    def start(self):
        self.start_time = time.time()
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(self.command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        Reader.started.append(self.process)

    def alive(self):
        if self.process.poll() is not None:
            log = (self.folder / "log").read_text(errors="replace").splitlines()
            raise Failed(f"{self.name} ended with code {self.process.returncode}: " + "\n".join(log[-5:]))

    def cpu_s(self):
        ticks = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

    def peak_mb(self):  # not wait4's, which is at least what Python had when it forked; none of a process that has ended
        peak_kb = Path(f"/proc/{self.process.pid}/status").read_text().partition("VmHWM:")[2].split()
        return int(peak_kb[0]) / 1024 if peak_kb else 0

    def stop(self, by=None):
        self.process.send_signal(by or self.stops_by)
        self.process.wait(LIMIT_S)

    def count(self, rows):
        """Stops it and reads all of its topic: how many rows are missing, how many records are double, the seconds between the
        first and the last CreateTime, and the bytes of a record's value."""
        self.stop()
        times, value_bytes, first_ms = bytearray(rows + 1), 0, None
        for record in iter(records(self.topic).__next__, None):
            times[row_id(record)] += 1
            value_bytes += len(record.value())
            last_ms = record.timestamp()[1]
            first_ms = first_ms or last_ms
        missing = times[1:].count(0)
        return missing, sum(times) - (rows - missing), max(last_ms - first_ms, 1) / 1e3, value_bytes / rows

    def leave(self):
        """Stops it, and leaves nothing behind."""
        self.stop()
        free = "SELECT 1 FROM pg_replication_slots WHERE slot_name = %s AND NOT active"
        wait_for(f"slot {self.slot}", lambda: sql(free, self.slot))
        sql("SELECT pg_drop_replication_slot(%s)", self.slot)
        for topic in self.topics:
            ADMIN.delete_topics([topic])[topic].result(LIMIT_S)
        shutil.rmtree(self.folder)

class Falaj(Reader):
    def __init__(self, job, name="falaj", host="127.0.0.1", topics=("{}",)):
        super().__init__(job, name, topics)
        self.url = f"postgres://falaj@{quote(host, safe='')}:{PORT}/falaj"
        (self.folder / "queries").mkdir()
        for file, text in self.queries().items():
            (self.folder / f"queries/{file}.sql").write_text(text)
        self.command = [FALAJ, "run", "queries", "--no-web"]

    def queries(self):
        """What it is to do: the text of each file."""
        tables = (f"CREATE UNBOUNDED EXTERNAL TABLE changes ({COLUMNS}) STORED AS POSTGRES LOCATION 'public.engagement_events'\n"
                  f"OPTIONS ('url' '{self.url}', 'slot' '{self.slot}', 'publication' 'wal_measured');\n"
                  f"CREATE EXTERNAL TABLE topic ({COLUMNS}) STORED AS KAFKA LOCATION '{self.topic}'\n"
                  f"OPTIONS ('brokers' '{BROKERS}', 'key' 'id');\n")
        return {"tables": tables, "copied": "INSERT INTO topic SELECT * FROM changes;\n"}

class Debezium(Reader):
    stops_by = signal.SIGKILL  # after SIGTERM a young Connect worker now and then waits for its own REST server for ever
    def __init__(self, job, name="debezium", topics=("{}.public.engagement_events",), **settings):
        super().__init__(job, name, topics)
        settings = DEBEZIUM | {name.replace("_", "."): value for name, value in settings.items()}
        settings |= {"name": self.slot, "topic.prefix": self.slot, "slot.name": self.slot}
        (self.folder / "settings").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        self.command = ["java", "-Xms1g", "-Xmx2g", "-cp", os.environ["WAL_DEBEZIUM_JARS"] + "/*",
                        "org.apache.kafka.connect.cli.ConnectStandalone", "settings", "settings"]

class Floor(Reader):
    def __init__(self, job, name="floor", host="127.0.0.1"):
        super().__init__(job, name, ())
        self.command = [os.environ["WAL_RECVLOGICAL"], "-h", host, "-p", PORT, "-U", "falaj", "-d", "falaj", "-S", self.slot, "--start",
                        "--no-loop", "-o", "proto_version=1", "-o", "publication_names=wal_measured", "-f", "/dev/null"]
