#!/bin/sh
# Starts coturn as a TURN server that relays only to the gateway. Its secret is that of
# turn.secret_file, and does not appear in the list of processes.
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
    # The gateway's media use UDP, so relaying to TCP peers is disabled. All sessions of one client
    # address (or /64 of IPv6) are one user, so that no address can use up total-quota; each browser
    # makes one allocation for each URL in turn.urls and each network of its machine. max-bps is in
    # bytes per second and direction: 12 Mbit/s, because a camera sends at most 8 Mbit/s and the
    # picture sent back has at most 6 (video.max_bitrate_kbps).
    echo "no-tcp-relay"
    echo "user-quota=8"
    echo "total-quota=1024"
    echo "max-bps=1500000"
    echo "log-file=stdout"
    echo "simple-log"
    echo "pidfile=/tmp/turnserver.pid"
    # Clients with credentials can reach only the addresses of the gateway.
    echo "denied-peer-ip=0.0.0.0-255.255.255.255"
    echo "denied-peer-ip=::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
    echo "$OOBLEX_ADVERTISE" | tr ',' '\n' | while read -r address; do
        echo "allowed-peer-ip=$address"
    done
} >"$configuration"
exec turnserver -c "$configuration"
