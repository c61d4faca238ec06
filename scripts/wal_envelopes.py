"""The job `envelopes` of scripts/wal: the same changes, on topics of falaj and of Debezium, field by field."""
import json
from pathlib import Path

from wal_readers import BROKERS, Debezium, Failed, Falaj, records, sql, table, wait_for

CASES = Path(__file__).parent.parent / "tests/capture/debezium"
TABLES = ["engagement_demo", "full_demo", "nopk_demo", "toast_demo", "toast_full", "types_demo"]

# The headers by which a change of a key is told.
KEY_HEADERS = ("__debezium.newkey", "__debezium.oldkey")

# What may differ, with the reason.
REASONS = {
    "ts_ms, ts_us, ts_ns": "when each of them read the change",
    "source.version": "falaj's version, and Debezium's",
    "source.name": "the prefix of the topics, which cannot be the same for both",
    "snapshot: source.ts_ms, ts_us, ts_ns, lsn, sequence, txId": "each copied the rows for itself, at another place in the WAL",
    "snapshot: source.snapshot": "Debezium tells the first and the last row; falaj copies tables side by side and says \"true\"",
    "after.df, all NULL": "Connect's converter puts the column's default into the place of a NULL",
    "after.dt, infinity": "Debezium's number of days overflows; falaj writes the greatest",
}

class Envelopes(Falaj):
    def queries(self):
        tables = "".join(
            f"CREATE UNBOUNDED EXTERNAL TABLE {name} (_debezium VARCHAR) STORED AS POSTGRES LOCATION 'public.{name}'\n"
            f"OPTIONS ('url' '{self.url}', 'slot' '{self.slot}', 'publication' 'wal_compared', 'snapshot' 'initial', 'changes' 'all');\n"
            f"CREATE EXTERNAL TABLE {name}_topic (_debezium VARCHAR) STORED AS KAFKA LOCATION '{topic}'\n"
            f"OPTIONS ('brokers' '{BROKERS}', 'format' 'debezium-json');\n" for name, topic in zip(TABLES, self.topics))
        return {"tables": tables} | {f"copy_{name}": f"INSERT INTO {name}_topic SELECT * FROM {name};\n" for name in TABLES}

def read(topic, count, alive):
    """The first records of a topic, as what a consumer parses."""
    found, parse = [], lambda text: json.loads(text) if text is not None else None
    for record in records(topic, alive=alive):
        if record is None:  # not `not record`: a record without a value has no length
            continue
        headers = sorted((name, parse(value)) for name, value in record.headers() or [] if name in KEY_HEADERS)
        found.append({"key": parse(record.key()), "headers": headers, "value": parse(record.value())})
        if len(found) == count:
            return found

def flat(value, path=""):
    """The fields of a record by their paths."""
    if not isinstance(value, dict) or not value:
        return {path: value}
    return {name: leaf for key, inner in value.items() for name, leaf in flat(inner, f"{path}.{key}" if path else key).items()}

def reason(name, path, ours, theirs):
    """Why a field differs; None if it must not."""
    path, value = path.removeprefix("value."), ours["value"] or {}
    is_read, source = value.get("op") == "r", path.removeprefix("source.")
    if path in ("ts_ms", "ts_us", "ts_ns"):
        return "ts_ms, ts_us, ts_ns"
    if path in ("source.version", "source.name"):
        return path
    if is_read and path == "source.snapshot":
        return "snapshot: source.snapshot"
    if is_read and path.startswith("source.") and source in ("ts_ms", "ts_us", "ts_ns", "lsn", "sequence", "txId"):
        return "snapshot: source.ts_ms, ts_us, ts_ns, lsn, sequence, txId"
    if name == "types_demo" and path == "after.df" and ours["key"] == {"id": 2}:
        return "after.df, all NULL"
    if name == "types_demo" and path == "after.dt" and ours["key"] == {"id": 3}:
        return "after.dt, infinity"
    return None

def envelopes():
    for statement in filter(None, (CASES / "tables.sql").read_text().split(";\n")):
        sql(statement)
    sql("CREATE PUBLICATION wal_compared FOR TABLE " + ", ".join(TABLES))
    counts = [sum(json.loads(line)["table"] == name for line in (CASES / "envelopes.jsonl").open()) for name in TABLES]
    falaj = Envelopes("envelopes", topics=[f"{{}}.{name}" for name in TABLES])
    debezium = Debezium("envelopes", topics=[f"{{}}.public.{name}" for name in TABLES], snapshot_mode="initial",
                        publication_name="wal_compared", skipped_operations="none",
                        table_include_list=",".join(f"public.{name}" for name in TABLES))
    for reader in (falaj, debezium):
        reader.start()
        read(reader.topics[TABLES.index("full_demo")], 2, reader.alive)  # the rows of the snapshot
        streams = "SELECT 1 FROM pg_replication_slots WHERE slot_name = %s AND active"
        wait_for(f"{reader.name}'s stream", lambda: reader.alive() or sql(streams, reader.slot))
    for transaction in (CASES / "changes.sql").read_text().split("\n\n"):
        sql("BEGIN; " + transaction + "; COMMIT")
    differences, fields = {}, 0
    for index, (name, count) in enumerate(zip(TABLES, counts)):
        for ours, theirs in zip(*(read(reader.topics[index], count, reader.alive) for reader in (falaj, debezium))):
            left, right = flat(ours), flat(theirs)
            fields += len(left.keys() | right.keys())
            for path in left.keys() | right.keys():
                of_ours, of_theirs = left.get(path, "<none>"), right.get(path, "<none>")
                if of_ours == of_theirs:
                    continue
                why = reason(name, path, ours, theirs)
                if why is None:
                    raise Failed(f"{name} {ours['key']}: {path} is {of_ours!r}, and Debezium's is {of_theirs!r}")
                differences.setdefault(why, []).append((of_ours, of_theirs))
    for reader in (falaj, debezium):
        reader.leave()
    shown = lambda value: json.dumps(value)[:40]
    rows = [[why, len(found), shown(found[0][0]), shown(found[0][1]), REASONS[why]] for why, found in sorted(differences.items())]
    same = fields - sum(map(len, differences.values()))
    table(f"envelopes: {sum(counts)} records of each; of {fields} fields {same} are equal, and these differ",
          ["field", "times", "falaj, for example", "Debezium", "reason"], rows)
