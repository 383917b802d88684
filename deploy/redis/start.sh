#!/bin/sh
# Starts Redis with redis.conf, and with the passwords and the memory limit from the environment.
# They are passed on standard input, so that no password appears in the list of processes.
set -eu
: "${REDIS_PASSWORD:?is not set: write it into .env}"
: "${REDIS_WORKER_PASSWORD:?is not set: write it into .env}"
for password in "$REDIS_PASSWORD" "$REDIS_WORKER_PASSWORD"; do
    case $password in
    *[!A-Za-z0-9]*)
        echo "REDIS_PASSWORD and REDIS_WORKER_PASSWORD may hold letters and digits only, because they stand in addresses: openssl rand -hex 32" >&2
        exit 1
        ;;
    esac
done
if [ "$REDIS_PASSWORD" = "$REDIS_WORKER_PASSWORD" ]; then
    echo "REDIS_PASSWORD and REDIS_WORKER_PASSWORD must differ: a worker must not be able to log in as the gateway" >&2
    exit 1
fi

# `default` is the user of clients that give no name. docs/scaling.md explains the rights of the
# other users: a gateway reads no frames, and a worker no results.
exec redis-server - <<CONFIGURATION
$(cat "$(dirname "$0")/redis.conf")
maxmemory ${REDIS_MEMORY_MB:-256}mb
user default reset off
user gateway reset on >$REDIS_PASSWORD %RW~ooblex:v*:next:* %W~ooblex:v*:frame:* %RW~ooblex:v*:frames_to_process:* %RW~ooblex:v*:processed_frames:* %W~ooblex:v*:probe:* %W~ooblex:gateway:* &ooblex:announcements:* -@all +select +ping +eval +set +del +exists +type +rename +pexpire +rpush +lpop +blpop +lpos +lrem +llen +publish +subscribe
user worker reset on >$REDIS_WORKER_PASSWORD %RW~ooblex:v*:frame:* %RW~ooblex:v*:frames_to_process:* %RW~ooblex:v*:hand:* %RW~ooblex:v*:wake:* %W~ooblex:v*:processed_frames:* %W~ooblex:v*:probe:* %W~ooblex:worker:* &ooblex:announcements:* -@all +select +ping +eval +set +del +strlen +getdel +rename +pttl +pexpire +rpush +ltrim +lpop +blpop +publish +subscribe
CONFIGURATION
