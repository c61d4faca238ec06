"""Reads a topic to its end with the clients' own deserializers, and prints each key and value as a line of JSON:
consume.py BROKERS REGISTRY TOPIC avro|json-schema|protobuf [FIELDS]

A reader of Protobuf has a class of its own; FIELDS says which: "name number type" and "?" where a field is optional, with commas between.
"""

import base64
import json
import pathlib
import sys
import tempfile

import grpc_tools
from confluent_kafka import Consumer, KafkaError
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2
from grpc_tools import protoc


class Registry(SchemaRegistryClient):
    """The client of Protobuf asks for schemas in their serialized form, which Apicurio does not have; the compiler makes it of the text."""

    def get_schema(self, schema_id, subject_name=None, fmt=None, **others):
        schema = super().get_schema(schema_id, subject_name, None, **others)
        if fmt == "serialized":
            return Schema(compiled(schema.schema_str), schema.schema_type)
        return schema


def compiled(text):
    with tempfile.TemporaryDirectory() as folder:
        source, made = pathlib.Path(folder, "schema.proto"), pathlib.Path(folder, "made")
        source.write_text(text)
        known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
        assert protoc.main(["protoc", f"-I{folder}", f"-I{known}", f"-o{made}", str(source)]) == 0, text
        return base64.b64encode(descriptor_pb2.FileDescriptorSet.FromString(made.read_bytes()).file[0].SerializeToString()).decode()


def message_class(fields):
    file = descriptor_pb2.FileDescriptorProto(name="reader.proto", syntax="proto3", dependency=["google/protobuf/timestamp.proto"])
    message = file.message_type.add(name="Reader")
    for name, number, kind in (field.split() for field in fields.split(",")):
        field = message.field.add(name=name, number=int(number), label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL)
        if kind.startswith("Timestamp"):
            field.type, field.type_name = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE, ".google.protobuf.Timestamp"
        else:
            field.type = descriptor_pb2.FieldDescriptorProto.Type.Value("TYPE_" + kind.rstrip("?").upper())
        if kind.endswith("?"):
            field.proto3_optional, field.oneof_index = True, len(message.oneof_decl)
            message.oneof_decl.add(name="_" + name)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Reader"))


def plain(message):
    """The fields as JSON has them; those that are unknown to the reader are an error."""
    assert not message.FindInitializationErrors()
    found = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.has_presence and not message.HasField(field.name):
            value = None
        elif field.type == field.TYPE_MESSAGE:
            value = value.ToJsonString()
        elif field.type == field.TYPE_BYTES:
            value = value.hex()
        found[field.name] = value
    return found


brokers, url, topic, form, *fields = sys.argv[1:]
registry = Registry({"url": url})
if form == "avro":
    deserialize = AvroDeserializer(registry)
elif form == "protobuf":
    parse = ProtobufDeserializer(message_class(fields[0]), {"use.deprecated.format": False}, registry)
    deserialize = lambda raw, context: plain(parse(raw, context))
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
