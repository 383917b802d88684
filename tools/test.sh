#!/usr/bin/env bash
# Runs the test suites one after the other, all of them even if one fails, and prints the total, "N
# passed, M failed", from the output of the test runners.
#
# usage: test.sh [rust] [sdk] [e2e] [clients] [hostile] [deploy]
set -uo pipefail
cd "$(dirname "$0")/.."
export NO_COLOR=1 CARGO_TERM_COLOR=never

passed=0 failed=0
output=$(mktemp)
trap 'rm -f "$output"' EXIT

# suite NAME COMMAND...: runs a suite and counts its tests. A runner that fails without a failed
# test (such as a build error) counts as one.
suite() {
    local name=$1 status=0 began=$SECONDS suite_passed suite_failed
    shift
    echo "== $name"
    "$@" 2>&1 | tee "$output" || status=$?
    # Output of cargo: "test result: ok. 12 passed; 0 failed; ..."; of node: "# pass 12" or "ℹ pass
    # 12", and "fail", "cancelled".
    read -r suite_passed suite_failed < <(awk '
        /^test result: / { for (i = 1; i < NF; i++) { if ($(i + 1) == "passed;") pass += $i; if ($(i + 1) == "failed;") fail += $i } }
        $1 == "#" || $1 == "ℹ" { if (NF == 3 && $2 == "pass") pass += $3; if (NF == 3 && ($2 == "fail" || $2 == "cancelled")) fail += $3 }
        END { print pass + 0, fail + 0 }' "$output")
    if [ "$status" != 0 ] && [ "$suite_failed" = 0 ]; then
        echo "== $name: the runner ended with status $status and named no failed test"
        suite_failed=1
    elif [ "$status" = 0 ] && [ "$suite_passed" = 0 ]; then
        echo "== $name: the runner found no test"
        suite_failed=1
    fi
    echo "== $name: $suite_passed passed, $suite_failed failed, $((SECONDS - began)) s"
    passed=$((passed + suite_passed)) failed=$((failed + suite_failed))
}

rust() {
    tools/install-packages.sh test || return
    # shellcheck disable=SC2046 # flags are words
    cargo test --release --workspace --locked --no-fail-fast $(tools/cargo-features.sh)
}

# Runs a command with node. Other commands keep their PATH: cargo compiles again when it changes.
with_node() { PATH=$node:$PATH "$@"; }

sdk() { (cd web && with_node node --test sdk/test/*.test.js page/test/*.test.js); }

e2e() {
    local chromium firefox
    tools/install-packages.sh browser || return
    # Without a Firefox its tests are skipped.
    tools/install-packages.sh firefox || true
    firefox=$(tools/find-firefox.sh) || true
    # The test with GStreamer needs root, too, for its network namespace.
    [ "$(id -u)" != 0 ] || tools/install-packages.sh gstreamer || true
    tools/install-packages.sh test || return
    if ! chromium=$(tools/find-chromium.sh); then
        echo "no browser for the end-to-end tests: CHROMIUM=${CHROMIUM:-} does not exist, and there is none in /usr/bin"
        return 1
    fi
    # shellcheck disable=SC2046
    cargo build --release --locked $(tools/cargo-features.sh) || return
    (cd tests/e2e && with_node npm ci --no-audit --no-fund && CHROMIUM=$chromium FIREFOX=$firefox with_node npm test)
}

# python FOLDER: the tests of tests/FOLDER, which use aiortc.
python() {
    local python
    tools/install-packages.sh hostile || return
    python=$(tools/hostile-venv.sh) || return
    # shellcheck disable=SC2046
    cargo build --release --locked $(tools/cargo-features.sh) || return
    "$python" "tests/$1/run.py"
}

clients() { python clients; }

hostile() { python hostile; }

deploy() {
    local chromium
    tools/install-packages.sh deploy || return
    tools/install-packages.sh test || return
    tools/install-packages.sh browser || return
    chromium=$(tools/find-chromium.sh) || return
    # shellcheck disable=SC2046
    cargo build --release --locked $(tools/cargo-features.sh) || return
    (cd tests/e2e && with_node npm ci --no-audit --no-fund) || return
    (cd tests/deploy && with_node npm ci --no-audit --no-fund && CHROMIUM=$chromium with_node npm test)
}

for name in "${@:-rust sdk e2e clients hostile deploy}"; do
    for one in $name; do
        case $one in
        rust | sdk | e2e | clients | hostile | deploy) ;;
        *) echo "test.sh: there is no suite '$one': rust, sdk, e2e, clients, hostile, deploy" >&2; exit 2 ;;
        esac
        case $one in
        sdk | e2e | deploy) node=$(tools/fetch-node.sh) || { failed=$((failed + 1)); continue; } ;;
        esac
        suite "$one" "$one"
    done
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
