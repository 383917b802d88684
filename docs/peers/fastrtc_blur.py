"""A gateway made with FastRTC that blurs backgrounds, for comparison with `ooblex bench`. See README.md
in this folder.

It answers `POST /offer` with {sdp, type} to {sdp, type}. The picture comes from FastRTC as BGR and goes back as BGR; the model, the
ramp of its mask and the strength of the blur are those of Ooblex's `background_blur` at its defaults.
"""

import argparse
import math
import os
import uuid
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import cv2
import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI
from fastrtc import Stream, VideoStreamHandler
from fastrtc.stream import Body
from pydantic import BaseModel

MODEL = Path(__file__).resolve().parents[2] / "models" / "selfie_landscape_144x256.onnx"
MODEL_SIZE = (256, 144)

# The mask ramp: below this probability of a person a pixel is background; it is foreground from
# RAMP above it.
LEAST_PROBABILITY = 0.3
RAMP = 0.5
# Standard deviation of the blur relative to the square root of the frame's area.
SIGMA = 0.032
# The blur is computed on a copy that is downscaled by this factor.
SHRINK = 4

# Maximum number of sessions per process: more than any benchmark needs.
SESSIONS = 10_000


class BackgroundBlur:
    """Keeps the person sharp and blurs the rest. One instance serves all sessions of a process; it
    is stateless.
    """

    def __init__(self, model: Path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self.model = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """frame: u8 [height, width, 3], BGR. Returns the same shape."""
        height, width = frame.shape[:2]
        # f32 NCHW [1, 3, 144, 256], RGB, 0..=1; the whole frame is scaled without keeping its
        # aspect ratio.
        blob = cv2.dnn.blobFromImage(frame, 1 / 255, MODEL_SIZE, swapRB=True)
        mask = self.model.run(None, {"input": blob})[0][0, 0]
        mask -= LEAST_PROBABILITY
        mask /= RAMP
        np.clip(mask, 0, 1, out=mask)
        person = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)

        small = cv2.resize(frame, (max(1, width // SHRINK), max(1, height // SHRINK)), interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), SIGMA * math.sqrt(width * height) / SHRINK)
        behind = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
        return cv2.blendLinear(frame, behind, person, 1 - person)


def unchanged(frame: np.ndarray) -> np.ndarray:
    """Returns the picture unchanged, after the same conversions to BGR and back."""
    return frame


class Offer(BaseModel):
    """The request of `ooblex bench` and of the examples of aiortc; other fields are ignored."""

    sdp: str
    type: str


def application(handler, skip_frames: bool) -> FastAPI:
    """The HTTP server: one route in front of FastRTC's own."""
    stream = Stream(
        handler=VideoStreamHandler(handler, skip_frames=skip_frames),
        modality="video",
        mode="send-receive",
        concurrency_limit=SESSIONS,
        # No STUN server is needed: the machine's own addresses are sufficient.
        server_rtc_configuration={"iceServers": []},
        verbose=False,
    )
    app = FastAPI()

    @app.post("/offer")
    async def offer(body: Offer):
        webrtc_id = uuid.uuid4().hex
        answer = await stream.offer(Body(sdp=body.sdp, type=body.type, webrtc_id=webrtc_id))
        # FastRTC sends the unprocessed picture until the handler's arguments are set; the frame
        # replaces the first of them.
        stream.set_input(webrtc_id, None)
        return answer

    return app


def worker() -> FastAPI:
    """Called in each process of uvicorn; its settings come from the environment."""
    blurred = os.environ.get("PEER_EFFECT", "blur") == "blur"
    handler = BackgroundBlur(Path(os.environ.get("PEER_MODEL", MODEL))) if blurred else unchanged
    return application(handler, skip_frames=os.environ.get("PEER_SKIP_FRAMES") == "1")


def main() -> None:
    parser = argparse.ArgumentParser(description="A FastRTC gateway with a background blur, for `ooblex bench`")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8100)
    parser.add_argument("--effect", choices=["blur", "none"], default="blur")
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--skip-frames", action="store_true", help="FastRTC's skip_frames: the newest frame instead of the next")
    parser.add_argument("--processes", type=int, default=1, help="processes of uvicorn that share the port")
    arguments = parser.parse_args()
    os.environ["PEER_EFFECT"] = arguments.effect
    os.environ["PEER_MODEL"] = str(arguments.model)
    os.environ["PEER_SKIP_FRAMES"] = "1" if arguments.skip_frames else "0"
    uvicorn.run(
        "fastrtc_blur:worker",
        factory=True,
        host=arguments.host,
        port=arguments.port,
        workers=arguments.processes,
        app_dir=str(Path(__file__).parent),
        log_level="warning",
    )


if __name__ == "__main__":
    main()
