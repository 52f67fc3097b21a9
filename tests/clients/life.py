"""A mirror's whole life through a stock gRPC client: no generated code, everything by reflection.

Usage: life.py HOST:PORT MIRROR, of which the peers MIRROR-pg and MIRROR-ch exist, and the table public.t.
"""

import sys
import time
import uuid

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

# Seconds that a call may take: generous, nothing here is about speed.
TIMEOUT = 120


class Service:
    """The methods of a service, as its descriptors have them."""

    def __init__(self, channel, pool, name):
        self.channel = channel
        self.pool = pool
        self.methods = pool.FindServiceByName(name).methods_by_name
        self.name = name

    def __call__(self, method, **request):
        descriptor = self.methods[method]
        taken = message_factory.GetMessageClass(descriptor.input_type)
        given = message_factory.GetMessageClass(descriptor.output_type)
        kind = self.channel.unary_stream if descriptor.server_streaming else self.channel.unary_unary
        call = kind(
            f"/{self.name}/{method}",
            request_serializer=taken.SerializeToString,
            response_deserializer=given.FromString,
        )
        message = json_format.ParseDict(request, taken(), descriptor_pool=self.pool)
        return call(message, timeout=TIMEOUT)


def word(message, field):
    """The name of an enum's value."""
    return message.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number[getattr(message, field)].name


def watch_until(mirrors, name, is_so):
    for answer in mirrors("WatchMirror", name=name):
        if is_so(answer.mirror):
            return answer.mirror
    raise AssertionError("the mirror is gone")


def main(address, name):
    channel = grpc.insecure_channel(address)
    database = ProtoReflectionDescriptorDatabase(channel)
    assert "millrace.v1.MirrorService" in database.get_services()
    pool = descriptor_pool.DescriptorPool(database)
    mirrors = Service(channel, pool, "millrace.v1.MirrorService")
    health = Service(channel, pool, "grpc.health.v1.Health")
    assert word(health("Check", service="millrace.v1.MirrorService"), "status") == "SERVING"

    mirror = {
        "name": name,
        "source": f"{name}-pg",
        "destination": f"{name}-ch",
        "tables": [{"source": "public.*"}],
    }
    planned = mirrors("CreateMirror", mirror=mirror, validate_only=True)
    assert [table.source for table in planned.tables] == ["public.t"], planned
    request_id = str(uuid.uuid4())
    for _ in range(2):
        mirrors("CreateMirror", mirror=mirror, request_id=request_id)

    running = watch_until(mirrors, name, lambda m: word(m, "state") == "RUNNING")
    assert running.tables[0].rows_copied == 1000, running
    assert word(mirrors("PauseMirror", name=name), "state") == "PAUSED"
    assert word(mirrors("ResumeMirror", name=name), "state") == "RUNNING"

    mirrors("ResyncTable", name=name, table="public.t")
    watch_until(mirrors, name, lambda m: word(m.tables[0], "state") == "STREAMING")
    verified = mirrors("VerifyMirror", name=name)
    while word(verified, "state") == "RUNNING":
        time.sleep(0.2)
        verified = mirrors("GetVerification", name=name, id=verified.id)
    assert word(verified, "verdict") == "EQUAL" and verified.tables[0].rows_source == 1000, verified

    try:
        mirrors("GetMirror", name="nobody")
        raise AssertionError("there is no such mirror")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error
        trailers = dict(error.trailing_metadata())
        assert b"MIRROR_NOT_FOUND" in trailers["grpc-status-details-bin"], trailers

    watched = mirrors("WatchMirror", name=name)
    next(watched)
    deleted = mirrors("DeleteMirror", name=name, drop_destination=True)
    assert deleted.done and not deleted.leftovers, deleted
    for _ in watched:
        pass
    print("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
