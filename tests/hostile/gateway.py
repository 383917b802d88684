"""The gateway under attack, as a process of its own, and what can be observed of it from outside.
"""

import atexit
import http.client
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("OOBLEX", str(REPOSITORY / "target/release/ooblex"))
# Timeouts for a busy machine; no result is judged by them.
READY_S = 60
PATIENCE_S = 30

# `delay` sends frames through a worker without running a model, so the neighbour uses little CPU
# but the whole path of a frame.
CONFIG = """
[serve]
workers = 1
# The other addresses of loopback are those of other clients here, not of a proxy.
trusted_proxies = ["127.0.0.1"]
{serve}[diagnostics]
effects = true
[log]
filter = "info,str0m=error,ort=warn"
"""


@dataclass
class Answer:
    """An HTTP response, and the time from the connection to its last byte."""

    status: int
    headers: dict
    body: bytes
    seconds: float

    def json(self):
        return json.loads(self.body)

    @property
    def problem(self):
        """Returns the last part of the problem document's type, or None if the answer is not a
        problem document.
        """
        if self.headers.get("content-type", "").split(";")[0] != "application/problem+json":
            return None
        return self.json()["type"].rsplit(":", 1)[-1]


class Gateway:
    """`ooblex serve` on free ports of the loopback interface, or with HTTP on a given one."""

    def __init__(self, config="", arguments=(), serve="", port=0, variables=None):
        self.folder = tempfile.TemporaryDirectory(prefix="ooblex-hostile-")
        path = pathlib.Path(self.folder.name)
        (path / "ooblex.toml").write_text(CONFIG.replace("{serve}", serve) + config)
        self.log_path = path / "log"
        command = [BINARY, "serve", "--config", str(path / "ooblex.toml"), "--listen", f"127.0.0.1:{port}"]
        command += ["--media", "127.0.0.1:0"]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=REPOSITORY,
                text=True,
                env={**os.environ, **(variables or {})},
            )
        atexit.register(end, self.process)
        self.pid = self.process.pid
        self.url = self._wait_until_ready()
        host, port = self.url.removeprefix("http://").rstrip("/").split(":")
        self.host, self.port = host, int(port)

    def _wait_until_ready(self):
        found = []

        def read():
            for line in self.process.stdout:
                if match := re.search(r"is ready: (http://\S+)", line):
                    found.append(match[1])
                    ready.set()
            ready.set()

        ready = threading.Event()
        threading.Thread(target=read, daemon=True).start()
        ready.wait(READY_S)
        if not found:
            end(self.process)
            log = self.log()
            self.stop()
            raise RuntimeError(f"{BINARY} did not become ready:\n{log}")
        return found[0]

    def log(self, lines=20):
        """Returns the end of the gateway's standard error."""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def request(self, method, path, body=None, headers=None, address="127.0.0.1", timeout=PATIENCE_S):
        """Sends one request on a separate connection, from an address of the loopback network."""
        if isinstance(body, str):
            body = body.encode()
        headers = dict(headers or {})
        if body is not None:
            headers = {"Content-Type": "application/json", **headers, "Content-Length": str(len(body))}
        start = time.monotonic()
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout, source_address=(address, 0))
        try:
            connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            try:
                connection.send(body or b"")
            except (BrokenPipeError, ConnectionResetError):
                pass  # The request was refused before all of it was sent
            response = connection.getresponse()
            content = response.read()
            told = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, told, content, time.monotonic() - start)
        finally:
            connection.close()

    def offer(self, sdp, address="127.0.0.1", headers=None, **fields):
        body = json.dumps({"sdp": sdp, "type": "offer", **fields})
        return self.request("POST", "/offer", body, headers=headers, address=address)

    def is_alive(self):
        """Returns whether the process that was started still answers."""
        if self.process.poll() is not None:
            return False
        try:
            return self.request("GET", "/healthz").status == 200
        except OSError:
            return False

    def sessions(self):
        return self.request("GET", "/api/sessions").json()["sessions"]

    def _status_mb(self, field):
        for line in pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 1024
        raise RuntimeError(f"no {field} of process {self.pid}")

    def resident_mb(self):
        return self._status_mb("VmRSS")

    def peak_mb(self):
        """Returns the peak resident memory since `forget_peak`."""
        return self._status_mb("VmHWM")

    def forget_peak(self):
        try:
            pathlib.Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        except OSError:
            pass  # Not supported on every kernel; then the peak is the one since the start

    def cpu_seconds(self):
        return cpu_seconds(self.pid)

    def open_files(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def holds(self, address, port):
        """Returns whether the gateway still has the connection from this address and port."""
        remote = f"{int.from_bytes(bytes(map(int, address.split('.'))), 'little'):08X}:{port:04X}"
        for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[2] == remote and int(fields[1].split(":")[1], 16) == self.port:
                return fields[3] == "01"
        return False

    def stop(self):
        end(self.process)
        self.process.stdout.close()
        self.folder.cleanup()


def cpu_seconds(pid):
    """Returns the CPU time of all threads of a process; 0 if it has ended."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def machine_seconds():
    """Returns the CPU time of all processors, without idle time and time stolen by other virtual
    machines.
    """
    user, nice, system, _, _, irq, softirq, steal, *_ = map(int, pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def end(process, how=signal.SIGTERM):
    """Ends a process that was started here, by force if necessary."""
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
