#!/usr/bin/env bash
# What `make setup` cannot take from the Python index: Python itself, Java 17 or newer (the embedded broker) and Maven
# (which fetches the broker's jars). Installs what is missing where it may (root on Debian or Ubuntu), otherwise names
# the packages.
set -euo pipefail
cd "$(dirname "$0")/.."

java_is_new_enough() {
    local java=${JAVA_HOME:+$JAVA_HOME/bin/java} version
    [ -x "$java" ] || java=$(command -v java) || return 1
    version=$("$java" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p')
    [ "${version:-0}" -ge 17 ]
}

missing=()
java_is_new_enough || missing+=(openjdk-17-jre-headless)
# Without Maven the jars may be there already, copied from another machine.
command -v mvn > /dev/null || compgen -G "deploy/kafka/target/libs/kafka_*.jar" > /dev/null || missing+=(maven)
# A Python that was asked for by name is not ours to replace.
[ -n "${PYTHON:-}" ] || scripts/find-python.sh > /dev/null 2>&1 || missing+=(python3 python3-venv)
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    echo "error: these Debian packages (or what your system calls them) are missing: ${missing[*]}." \
        "Install them and run \`make setup\` again; only root on Debian or Ubuntu gets them by itself." >&2
    exit 1
fi

echo "installing ${missing[*]}"
apt-get update -qq
# Releases that no longer have Java 17 have a newer one.
if ! apt-cache show openjdk-17-jre-headless > /dev/null 2>&1; then
    missing=("${missing[@]/openjdk-17-jre-headless/default-jre-headless}")
fi
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
if ! java_is_new_enough; then
    echo "error: the Java that runs is still older than 17; let JAVA_HOME name the new one" >&2
    exit 1
fi
