"""The contract: every Kafka topic and every message that travels on one.

Read :mod:`topics.registry` first: it lists the topics in the order in which data pass.
"""
