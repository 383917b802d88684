#!/bin/sh
# Makes a self-signed certificate if there is none, so that HTTPS works from the first start on:
# browsers warn about it once, and then allow the page to use the camera. A custom fullchain.pem and
# privkey.pem are left unchanged.
set -eu
folder=${TLS_FOLDER:-/etc/nginx/tls}
certificate=$folder/fullchain.pem key=$folder/privkey.pem mark=$folder/self-signed

if [ -s "$certificate" ] && [ -s "$key" ]; then
    # A custom certificate that replaced the self-signed one has another issuer.
    subject=$(openssl x509 -in "$certificate" -noout -subject_hash) issuer=$(openssl x509 -in "$certificate" -noout -issuer_hash)
    if [ ! -e "$mark" ] || [ "$subject" != "$issuer" ]; then exit 0; fi
    if openssl x509 -in "$certificate" -noout -checkend 2592000 >/dev/null; then exit 0; fi
    echo "make-certificate: the self-signed certificate ends within 30 days; it is made anew"
elif [ -e "$certificate" ] || [ -e "$key" ]; then
    echo "make-certificate: $folder must hold both fullchain.pem and privkey.pem, and one of them is missing or empty" >&2
    exit 1
fi

names=DNS:localhost
for address in $(echo "${OOBLEX_ADVERTISE:-}" | tr ',' ' '); do names="$names,IP:$address"; done
if [ -n "${OOBLEX_DOMAIN:-}" ]; then names="$names,DNS:$OOBLEX_DOMAIN"; fi
umask 077
touch "$mark"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 -subj "/CN=${OOBLEX_DOMAIN:-ooblex}" \
    -addext "subjectAltName=$names" -keyout "$key" -out "$certificate" 2>/dev/null
echo "make-certificate: made a self-signed certificate for $names"
