#!/usr/bin/env bash
# Checks the system's packages: prints nothing if all are installed, installs missing ones with apt
# if it may, and otherwise prints the command that you have to run.
#
# usage: install-packages.sh build|test|browser|firefox|gstreamer|hostile|fuzz|deploy
#   build      packages for `cargo build` and for downloading ONNX Runtime
#   test       Redis, Redis Sentinel, openssl and ffmpeg; the tests start their own servers on free ports
#   browser    a Chromium for the end-to-end tests
#   firefox    a Firefox for those of them that run in it
#   gstreamer  webrtcbin and its Python bindings, for the test with GStreamer (22 MB to download, 64 MB on disk)
#   hostile    Python with venv, for the tests with a public WebRTC stack
#   fuzz       the compiler of the address sanitizer
#   deploy     nginx, Prometheus and coturn; the tests of deploy/ start their own servers
set -euo pipefail
cd "$(dirname "$0")/.."

# Prints the missing packages, one per line.
missing() {
    case $1 in
    build)
        tool cc build-essential
        tool c++ build-essential
        case $(uname -m) in x86_64 | i?86) tool nasm nasm ;; esac
        tool pkg-config pkg-config
        library vpx libvpx-dev
        library openssl libssl-dev
        case $(tools/cargo-features.sh) in *generate-bindings*) has_libclang || echo libclang-dev ;; esac
        if ! ls .runtime/libonnxruntime.so.* >/dev/null 2>&1 && ! has_pip; then printf 'python3\npython3-pip\n'; fi
        ;;
    test)
        tool redis-server redis-server
        tool redis-sentinel redis-sentinel
        tool openssl openssl
        tool ffmpeg ffmpeg
        ;;
    browser)
        tools/find-chromium.sh >/dev/null || echo chromium
        ;;
    firefox)
        # Ubuntu has it only as a snap.
        tools/find-firefox.sh >/dev/null || is_ubuntu || echo firefox-esr
        ;;
    gstreamer)
        for package in gstreamer1.0-plugins-{good,bad} gstreamer1.0-nice gir1.2-gst-plugins-bad-1.0 python3-gi; do
            installed "$package" || echo "$package"
        done
        ;;
    hostile)
        python3 -c 'import ensurepip, venv' 2>/dev/null || printf 'python3\npython3-venv\n'
        ;;
    fuzz)
        tool clang clang
        ;;
    deploy)
        [ -x /usr/sbin/nginx ] || tool nginx nginx-light
        tool promtool prometheus
        tool turnserver coturn
        ;;
    *)
        echo "usage: install-packages.sh build|test|browser|firefox|gstreamer|hostile|fuzz|deploy" >&2
        exit 2
        ;;
    esac
}

tool() { command -v "$1" >/dev/null || echo "$2"; }
library() { pkg-config --exists "$1" 2>/dev/null || installed "$2" || echo "$2"; }
installed() { [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
has_libclang() { [ -n "${LIBCLANG_PATH:-}" ] || installed libclang-dev || ls /usr/lib/llvm-*/lib/libclang.so /usr/lib*/libclang.so >/dev/null 2>&1; }
has_pip() { python3 -m pip --version >/dev/null 2>&1 || /usr/bin/python3 -m pip --version >/dev/null 2>&1; }

# Ubuntu's chromium is an empty package that installs a snap.
is_ubuntu() { grep -qs '^ID=ubuntu' /etc/os-release; }
no_chromium_on_ubuntu() {
    cat >&2 <<'MEND'
error: the end-to-end tests need Chromium or Chrome. Ubuntu has Chromium only as a snap, which cannot read the clips that the
tests put into /tmp. Install Google Chrome's .deb (https://www.google.com/chrome), or name a browser: make test CHROMIUM=/path/to/chrome
Everything else is tested by: make test SUITES="rust sdk"
MEND
    exit 1
}

# Runs a command as root, or fails if that would need a password.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo --non-interactive "$@"; fi
}
may_be_root() { [ "$(id -u)" = 0 ] || { command -v sudo >/dev/null && sudo --non-interactive true 2>/dev/null; }; }

give_up() {
    echo "error: these packages are missing: $*. Install them with" >&2
    echo >&2
    echo "    sudo apt-get update && sudo apt-get install --no-install-recommends $*" >&2
    echo >&2
    echo "and run make again." >&2
    exit 1
}

updated=
# Runs twice, because the version of the installed libvpx decides whether libclang is needed as
# well.
for _ in first second; do
    found=$(missing "$1" | sort -u)
    [ -n "$found" ] || exit 0
    mapfile -t packages <<<"$found"

    if [ "${packages[*]}" = chromium ] && is_ubuntu; then no_chromium_on_ubuntu; fi
    if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
        echo "warning: this is neither Debian nor Ubuntu; the contents of their packages ${packages[*]} seem to be missing" >&2
        exit 0
    fi
    may_be_root || give_up "${packages[@]}"
    echo "installing ${packages[*]}" >&2
    if [ -z "$updated" ]; then
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -q update >&2 || echo "warning: apt-get update failed; trying with the lists that are there" >&2
        updated=yes
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install --yes --no-install-recommends "${packages[@]}" >&2 || give_up "${packages[@]}"
done
found=$(missing "$1" | sort -u | tr '\n' ' ')
[ -z "$found" ] || give_up "$found"
