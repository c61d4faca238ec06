"""Writes records with the official serializers: argv[1] is brokers, argv[2] the registry, argv[3] the topic; each line of stdin is one
step, {"format": "avro" | "json", "schema": …, "records": […]}. In records {"$time": microseconds}, {"$day": days} and {"$decimal": "1.23"}
stand for what JSON has not."""

import datetime
import decimal
import json
import sys

from confluent_kafka import Producer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def meant(value):
    if isinstance(value, list):
        return [meant(item) for item in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"$time": micros}:
            return EPOCH + datetime.timedelta(microseconds=micros)
        case {"$day": days}:
            return (EPOCH + datetime.timedelta(days=days)).date()
        case {"$decimal": text}:
            return decimal.Decimal(text)
    return {name: meant(item) for name, item in value.items()}


brokers, url, topic = sys.argv[1:]
registry = SchemaRegistryClient({"url": url})
producer = Producer({"bootstrap.servers": brokers})
context = SerializationContext(topic, MessageField.VALUE)
for line in sys.stdin:
    step = json.loads(line)
    schema = json.dumps(step["schema"])
    if step["format"] == "avro":
        serialize = AvroSerializer(registry, schema)
    else:
        serialize = JSONSerializer(schema, registry)
    for record in step["records"]:
        producer.produce(topic, serialize(meant(record), context), partition=step.get("partition", 0))
producer.flush()
