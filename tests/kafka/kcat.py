"""What of kcat the pages use, for machines without it. kcat is librdkafka with a front; so is this.

A program, not a module of tests: it gets kcat's own arguments.
"""

from __future__ import annotations

import argparse
import sys

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition


def main() -> None:
    """Produce or consume."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-P", action="store_true", dest="produce")
    parser.add_argument("-C", action="store_true", dest="consume")
    parser.add_argument("-Z", action="store_true", dest="empty_is_null")
    parser.add_argument("-e", action="store_true", dest="stop_at_end")
    parser.add_argument("-q", action="store_true")
    parser.add_argument("-b", required=True, dest="brokers")
    parser.add_argument("-t", required=True, dest="topic")
    parser.add_argument("-k", dest="key")
    parser.add_argument("-K", dest="delimiter")
    parser.add_argument("-H", action="append", default=[], dest="headers")
    parser.add_argument("-o", choices=["beginning"], dest="offset")
    parser.add_argument("-f", default="%s\n", dest="form")
    options = parser.parse_args()
    assert options.produce != options.consume
    (produce if options.produce else consume)(options)


def produce(options: argparse.Namespace) -> None:
    """One record a line of standard input."""
    failures: list[str] = []
    producer = Producer({"bootstrap.servers": options.brokers})
    headers = [tuple(header.split("=", 1)) for header in options.headers]
    for line in sys.stdin.read().splitlines():
        key, value = options.key, line
        if options.delimiter is not None:
            key, _, value = line.partition(options.delimiter.encode().decode("unicode_escape"))
        if not value and not (options.empty_is_null and options.delimiter):
            continue
        producer.produce(
            options.topic,
            value or (None if options.empty_is_null else ""),
            key,
            headers=headers,
            on_delivery=lambda error, _: failures.append(str(error)) if error else None,
        )
    assert producer.flush(30) == 0
    assert not failures, failures


def consume(options: argparse.Namespace) -> None:
    """Everything up to the end."""
    consumer = Consumer(
        {
            "bootstrap.servers": options.brokers,
            "group.id": "kcat",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    partitions = consumer.list_topics(options.topic, 30).topics[options.topic].partitions
    consumer.assign([TopicPartition(options.topic, number, 0) for number in partitions])
    left = len(partitions)
    while left:
        message = consumer.poll(30)
        assert message is not None, "no answer"
        if error := message.error():
            assert error.code() == KafkaError._PARTITION_EOF, error
            left -= 1
            continue
        key, value = (message.key() or b"").decode(), (message.value() or b"").decode()
        form = options.form.encode().decode("unicode_escape")
        sys.stdout.write(form.replace("%k", key).replace("%s", value))
    consumer.close()


if __name__ == "__main__":
    main()
