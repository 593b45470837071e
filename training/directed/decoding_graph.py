"""The decoder's training on a GPU: one graph, on a stream of its own."""

import threading
import time

import torch
from diffusers import AutoencoderKLWan

from training.directed import decoding
from training.directed.codec import CELL_FRAMES, CELL_PX, FastEncoder, decode
from training.directed.decoding import DecodingConfig
from training.directed.graphs import Follower, Log, Replayed, shares_of, stream_on
from training.directed.muon import Muons
from training.directed.networks import broad
from training.directed.supply import Supply
from training.optimisers import rate_share


class Decoding:
    """The decoder's training."""

    def __init__(self, config: DecodingConfig, vae: AutoencoderKLWan, batch: int, layout: bool, log: Log) -> None:
        self._config, self._vae, self._log = config, vae, log
        device = vae.device
        self.decoder = decoding.opened(vae)
        if layout:
            decoding.channels_last(self.decoder)
        self._trainers = Muons(self.decoder, rate=config.rate, matrix_rate=config.matrix_rate)
        self.average = Follower(self.decoder, decay=0.999)
        encode = FastEncoder(vae)
        side, frames = config.window_px, config.window_frames
        self._shown = torch.zeros(batch, 3, frames, side, side, dtype=torch.uint8, device=device)
        z = vae.config.z_dim
        plane = ((frames - 1) // CELL_FRAMES + 1, side // CELL_PX, side // CELL_PX)
        self._noise = torch.zeros(batch, z, *plane, device=device)
        self._error, self._seen = torch.zeros((), device=device), 0
        self.step = 0

        def body() -> None:
            true = self._shown.float() / 127.5 - 1
            error = decode(vae, encode.restored(encode.normalised(true) + self._noise)) - true
            self._trainers.descend(decoding.loss_of(error))
            self._error.add_(error.detach().pow(2).mean())

        self._trainers.set_share(0.0)
        self._stream = stream_on(device)
        self._body = Replayed(body, self._stream)
        self._trainers.forget()
        self._error.zero_()

    def train(self, supply: Supply, until_s: float, started: float, seed: int, ended: threading.Event) -> None:
        """Until that many seconds after `started`; `ended` stops it before."""
        device, config = self._shown.device, self._config
        generator = torch.Generator(device).manual_seed(seed + 5)
        stream = self._stream
        begun = time.monotonic() - started
        with torch.cuda.stream(stream):
            while not ended.is_set():
                elapsed = time.monotonic() - started
                done = shares_of(until_s - begun, elapsed - begun)
                rows = torch.randint(0, supply.windows_filled, (len(self._shown),), device=device, generator=generator)
                torch.index_select(supply.windows, 0, rows, out=self._shown)
                size = torch.rand(len(self._shown), device=device, generator=generator) * 1.5 - 0.5
                self._noise.normal_(generator=generator).mul_(config.noise * broad(size).clamp_min(0))
                self._trainers.set_share(rate_share(self.step, done, 30))
                self._body()
                self.average.follow(self.step)
                self.step, self._seen = self.step + 1, self._seen + 1
                if self.step % 10 == 0 and stream is not None:
                    stream.synchronize()
                if self.step % 200 == 0 or done >= 1:
                    quality = 10 * torch.log10(4 * self._seen / self._error)
                    self._log(stage="decoder", step=self.step, psnr=round(float(quality), 2), done=round(done, 3))
                    self._error.zero_()
                    self._seen = 0
                if done >= 1:
                    return
