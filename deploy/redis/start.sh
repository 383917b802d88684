#!/bin/sh
# Starts Redis on redis.conf, with the user and the limit of memory that the environment gives. They go in by standard input, so that no
# password stands in a list of processes.
set -eu
: "${REDIS_PASSWORD:?is not set: write it into .env}"
case $REDIS_PASSWORD in
*[!A-Za-z0-9]*)
    echo "REDIS_PASSWORD may hold letters and digits only, because it stands in an address: openssl rand -hex 32" >&2
    exit 1
    ;;
esac

# `default` is the user that everybody is who gives no name.
exec redis-server - <<CONFIGURATION
$(cat "$(dirname "$0")/redis.conf")
maxmemory ${REDIS_MEMORY_MB:-256}mb
user default reset off
user ooblex reset on >$REDIS_PASSWORD ~ooblex:* &ooblex:* +auth +select +ping +eval +set +getdel +del +exists +type +rename +pttl +pexpire +rpush +lpop +blpop +lpos +lrem +ltrim +llen +publish +subscribe +unsubscribe +punsubscribe
CONFIGURATION
