"""Writes records with the official serializers: argv[1] is brokers, argv[2] the registry, argv[3] the topic; each line of stdin is one
step, {"format": "avro" | "json", "schema": …, "records": […]}. In records {"$time": microseconds}, {"$day": days} and {"$decimal": "1.23"}
stand for what JSON has not; types of other subjects are "imports" by name. A step of "protobuf" has the text of a file as its "schema", those that it imports by name as "imports", and the
full name of its "message"; its records are Protobuf's JSON. With "header" the schema's GUID goes into the header of each record."""

import datetime
import decimal
import json
import pathlib
import sys
import tempfile

import grpc_tools
from confluent_kafka import Producer
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient, header_schema_id_serializer
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_tools import protoc

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


def message_class(step):
    """What protoc would generate of the step's files."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in {"schema.proto": step["schema"], **step.get("imports", {})}.items():
            pathlib.Path(folder, name).write_text(text)
        known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
        made = pathlib.Path(folder, "made")
        arguments = ["protoc", f"-I{folder}", f"-I{known}", f"-o{made}", "--include_imports", f"{folder}/schema.proto"]
        assert protoc.main(arguments) == 0, step["schema"]
        files = descriptor_pb2.FileDescriptorSet.FromString(made.read_bytes()).file
    pool = descriptor_pool.DescriptorPool()
    for file in files:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(step["message"]))


brokers, url, topic = sys.argv[1:]
registry = SchemaRegistryClient({"url": url})
producer = Producer({"bootstrap.servers": brokers})
for line in sys.stdin:
    step = json.loads(line)
    schema = json.dumps(step["schema"])
    place = {"schema.id.serializer": header_schema_id_serializer} if step.get("header") else {}
    if step["format"] == "protobuf":
        kind = message_class(step)
        write = ProtobufSerializer(kind, registry, {"use.deprecated.format": False, **place})
        serialize = lambda record, context: write(json_format.ParseDict(record, kind()), context)
    elif step["format"] == "avro":
        references = []
        for name, imported in step.get("imports", {}).items():
            subject = f"{topic}-{name}"
            registry.register_schema(subject, Schema(json.dumps(imported), "AVRO"))
            references.append(SchemaReference(name, subject, 1))
        serialize = AvroSerializer(registry, Schema(schema, "AVRO", references), conf=place)
    else:
        serialize = JSONSerializer(schema, registry)
    for record in step["records"]:
        context = SerializationContext(topic, MessageField.VALUE, [])
        payload = serialize(meant(record), context)
        producer.produce(topic, payload, partition=step.get("partition", 0), headers=context.headers)
producer.flush()
