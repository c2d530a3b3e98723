"""What every process needs, written once: Kafka clients, scan log, metrics, logs, run loop, the file format."""
