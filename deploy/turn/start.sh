#!/bin/sh
# Starts coturn as a relay to the gateway and to nothing else. Its secret is that of turn.secret_file, and stands in no list of processes.
set -eu
: "${OOBLEX_ADVERTISE:?is not set: write it into .env}"
secret_file=${TURN_SECRET_FILE:-/etc/ooblex/auth/turn_secret}
if [ ! -s "$secret_file" ]; then
    echo "$secret_file is missing or empty: openssl rand -hex 32 > deploy/auth/turn_secret" >&2
    exit 1
fi

umask 077
configuration=${TURN_CONFIGURATION:-/tmp/turnserver.conf}
{
    echo "listening-port=${TURN_PORT:-3478}"
    echo "use-auth-secret"
    echo "static-auth-secret=$(cat "$secret_file")"
    echo "realm=ooblex"
    echo "fingerprint"
    echo "no-tls"
    echo "no-dtls"
    echo "no-cli"
    echo "no-multicast-peers"
    # The gateway's media are UDP, so nothing is relayed by TCP. Each session has credentials of its own (the user); its browser makes an
    # allocation for each address in turn.urls and each network of its machine. max-bps is bytes a second, each way: 12 Mbit/s, where a camera
    # takes 8 at most and the picture that comes back 6 (video.max_bitrate_kbps).
    echo "no-tcp-relay"
    echo "user-quota=16"
    echo "total-quota=1024"
    echo "max-bps=1500000"
    echo "log-file=stdout"
    echo "simple-log"
    echo "pidfile=/tmp/turnserver.pid"
    # Whoever has credentials reaches the gateway's media through here, and no other address.
    echo "denied-peer-ip=0.0.0.0-255.255.255.255"
    echo "denied-peer-ip=::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
    echo "$OOBLEX_ADVERTISE" | tr ',' '\n' | while read -r address; do
        echo "allowed-peer-ip=$address"
    done
} >"$configuration"
exec turnserver -c "$configuration"
