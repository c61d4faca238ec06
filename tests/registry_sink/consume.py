"""Reads a topic to its end with the clients' own deserializers, and prints each key and value as a line of JSON:
consume.py BROKERS REGISTRY TOPIC avro|json-schema
"""

import json
import sys

from confluent_kafka import Consumer, KafkaError
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

brokers, url, topic, form = sys.argv[1:]
registry = SchemaRegistryClient({"url": url})
if form == "avro":
    deserialize = AvroDeserializer(registry)
else:
    deserialize = JSONDeserializer(None, schema_registry_client=registry)
consumer = Consumer({
    "bootstrap.servers": brokers,
    "group.id": topic + "-python",
    "auto.offset.reset": "earliest",
    "isolation.level": "read_committed",
    "enable.auto.commit": False,
    "enable.partition.eof": True,
})
consumer.subscribe([topic])
partitions = len(consumer.list_topics(topic).topics[topic].partitions)
ended = set()
while len(ended) < partitions:
    message = consumer.poll(30)
    if message is None:
        sys.exit("nothing came for 30 s")
    if message.error():
        if message.error().code() != KafkaError._PARTITION_EOF:
            sys.exit(str(message.error()))
        ended.add(message.partition())
        continue
    raw = message.value()
    value = deserialize(raw, SerializationContext(topic, MessageField.VALUE)) if raw is not None else None
    key = message.key().decode() if message.key() is not None else None
    print(json.dumps({"key": key, "value": value}, default=str))
consumer.close()
