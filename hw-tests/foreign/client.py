"""A central on Bumble, a Bluetooth stack that is not BlueZ, against a peripheral of ours (echo.rs) that sends every byte back.

Written from firmware-notes/gatt.md (this file) and firmware-notes/link.md (link.py) alone: it proves that the pages suffice to write a peer.
It finds the service by its advert, reads the information, subscribes, shakes hands, sends more than a window through loss, is cut off in the
middle, is refused with a wrong proof, resumes at the byte with packets of another size, and closes. The last line is a JSON object.

    client.py HCI-SOCKET CONTROL-SOCKET RADIO [--bytes N] [--seed S]

HCI-SOCKET is a port of the virtual radio for a host stack, CONTROL-SOCKET its control socket, RADIO its program.
"""

import argparse
import asyncio
import collections
import json
import random
import struct
import sys
import time

from bumble.core import UUID, AdvertisingData, BaseBumbleError
from bumble.device import Device, Peer
from bumble.hci import Address
from bumble.transport import open_transport

from link import VERSIONS, WINDOW, Link, LinkError, Reader

UUID_FORM = "8F4E{:04X}-C2D7-4B1A-9D63-5E0A7B21F8C4"
SERVICE, INFORMATION = UUID(UUID_FORM.format(0x0001)), UUID(UUID_FORM.format(0x0004))
ATT_MTU = 517
PACKET_MAX = 495

# What echo.rs advertises, by the page's example.
EXPECTED_STATE = bytes.fromhex("01 34 02 ef be ad de 0c 0b 0a")

# Faults made here, on top of what the radio loses: shares of packets dropped each way, doubled, and swapped with the next.
DROPPED, DOUBLED, SWAPPED = 0.03, 0.01, 0.02

STEP_LIMIT_S = 60
ADVERT_LIMIT_S = 20
CUT_MS = 2500
RECONNECTS_MAX = 4


class Lost(Exception):
    """The radio connection is gone."""


def say(text):
    print(f"[{time.monotonic() - STARTED:6.2f} s] {text}", flush=True)


def pattern(start, count):
    """Bytes of the stream from an offset on: no stretch looks like another."""
    first, skip = divmod(start, 4)
    words = b"".join(struct.pack("<I", n * 2654435761 % (1 << 32)) for n in range(first, first + count // 4 + 2))
    return words[skip : skip + count]


# --- GATT -------------------------------------------------------------------------------------------------------------------------------


async def find(device):
    """The address of the first device whose advert has our service data, and its state."""
    found = asyncio.get_running_loop().create_future()

    def heard(advertisement):
        for data in advertisement.data.get_all(AdvertisingData.Type.SERVICE_DATA_128_BIT_UUID, raw=True):
            if data[:16] == SERVICE.to_bytes() and not found.done():
                found.set_result((advertisement.address, bytes(data[16:])))

    device.on("advertisement", heard)
    await device.start_scanning(filter_duplicates=False)
    try:
        return await asyncio.wait_for(found, ADVERT_LIMIT_S)
    finally:
        device.remove_listener("advertisement", heard)
        await device.stop_scanning()


class Channel:
    """A connection to one lane: link packets both ways."""

    def __init__(self, connection, peer, size):
        self.connection, self.peer, self.size = connection, peer, size
        self.arrived = collections.deque()
        self.woken = asyncio.Event()
        self.held_out, self.held_in = [], []  # a packet that the next one overtakes
        self.gone = False
        connection.on("disconnection", self.ended)

    def ended(self, reason):
        say(f"disconnected, HCI reason {reason:#04x}")
        self.gone = True
        self.woken.set()

    def notified(self, value):
        self.arrived.append(bytes(value))
        self.woken.set()

    async def send(self, packet):
        if self.gone:
            raise Lost
        await self.peer.write_value(self.lane, packet, with_response=False)

    async def disconnect(self):
        if not self.gone:
            await self.connection.disconnect()


async def connect(device, packet_max):
    """Steps 1 and 2 of the page's order; gives a channel and the state that was advertised."""
    address, state = await find(device)
    connection = await device.connect(address, timeout=15)
    peer = Peer(connection)
    mtu = await peer.request_mtu(ATT_MTU)
    services = await peer.discover_service(SERVICE)
    if not services:
        raise LinkError("the service is not there")
    characteristics = {c.uuid: c for c in await services[0].discover_characteristics()}
    value = await peer.read_value(characteristics[INFORMATION])
    reader = Reader(value)
    profile, size_max = reader.u8(), reader.varint()
    if profile != 1:
        raise LinkError(f"profile {profile}")
    psm = reader.varint() if reader.u8() else None
    lane = reader.u8() if reader.u8() else None
    if lane is None:
        raise LinkError("no lane is free")
    size = min(packet_max, size_max, mtu - 3)
    if 245 <= size <= 494:
        size = 244
    channel = Channel(connection, peer, size)
    channel.lane = characteristics[UUID(UUID_FORM.format(0x0100 + lane))]
    await peer.subscribe(characteristics[UUID(UUID_FORM.format(0x0200 + lane))], channel.notified)
    say(f"connected to {address}: ATT MTU {mtu}, information {value.hex(' ')} (PSM {psm}, lane {lane}), packets of {size}")
    return channel, state


# --- the echo ---------------------------------------------------------------------------------------------------------------------------


class Echo:
    """Writes the pattern, checks that it comes back."""

    def __init__(self, total, rng):
        self.total, self.rng = total, rng
        self.link = Link(rng)
        self.checked = 0
        self.faults = collections.Counter()
        self.calm = False  # no faults of our own

    def disturb(self, packet, held):
        """What becomes of a packet on its way: a list of packets. `held` keeps one that the next overtakes."""
        if self.calm:
            return [packet]
        chance = self.rng.random()
        if chance < DROPPED:
            self.faults["dropped"] += 1
            return []
        if chance < DROPPED + DOUBLED:
            self.faults["doubled"] += 1
            return [packet, packet]
        if chance < DROPPED + DOUBLED + SWAPPED and not held:
            self.faults["swapped"] += 1
            held.append(packet)
            return []
        out = [packet, *held]
        held.clear()
        return out

    def exchange(self):
        """Takes what came back, writes what is next."""
        back = self.link.read()
        if back != pattern(self.checked, len(back)):
            raise LinkError(f"what came back from byte {self.checked} on is not what was sent")
        self.checked += len(back)
        room = min(self.total - self.link.written, 65536 - len(self.link.unsent))
        if room > 0:
            self.link.write(pattern(self.link.written, room))

    async def move(self, channel, is_done):
        """Moves packets until `is_done`; raises Lost when the connection goes."""
        link, now = self.link, time.monotonic
        until = now() + STEP_LIMIT_S
        while not is_done():
            if channel.gone:
                raise Lost
            if now() > until:
                raise LinkError(f"no end within {STEP_LIMIT_S} s: {link.state}, {self.checked} of {self.total} bytes came back")
            while (packet := link.poll(now())) is not None:
                for out in self.disturb(packet, channel.held_out):
                    await channel.send(out)
            wait = max(0.001, link.deadline(now()) - now())
            try:
                await asyncio.wait_for(channel.woken.wait(), wait)
            except TimeoutError:
                pass
            channel.woken.clear()
            while channel.arrived:
                for packet in self.disturb(channel.arrived.popleft(), channel.held_in):
                    link.handle(now(), packet)
            self.exchange()


async def cut(arguments):
    """Puts guest and Bumble out of range for a while: longer than their supervision timeout."""
    command = json.dumps({"command": "cut", "a": 0, "b": 1, "ms": CUT_MS})
    process = await asyncio.create_subprocess_exec(arguments.radio, "control", arguments.control, command)
    if await process.wait():
        raise LinkError("the radio refused to cut")


async def scenario(device, arguments):
    rng = random.Random(arguments.seed)
    echo = Echo(arguments.bytes, rng)
    link = echo.link
    early = arguments.bytes // 8  # bytes are on their way both ways then

    def begin(channel):
        link.connected(time.monotonic(), channel.size)

    channel, state = await connect(device, PACKET_MAX)
    if state != EXPECTED_STATE:
        raise LinkError(f"the advert says {state.hex(' ')}, expected {EXPECTED_STATE.hex(' ')}")
    link.versions = (1, 1)  # as a peer of an older release; what comes later offers the newest too
    begin(channel)
    await echo.move(channel, lambda: echo.checked >= early)
    say(f"session {link.session.name.hex()}: {echo.checked} bytes came back; the radio is cut")
    cut_at = time.monotonic()
    cutting = asyncio.create_task(cut(arguments))
    try:
        await echo.move(channel, lambda: False)
    except Lost:
        link.lost()
    await cutting
    session, sent, link.versions = link.session, link.sent_most, VERSIONS
    if echo.checked == arguments.bytes:
        raise LinkError("all came back before the cut: nothing was shown")
    say(f"lost after {time.monotonic() - cut_at:.2f} s: {sent} bytes sent, {echo.checked} came back")

    channel, _ = await connect(device, PACKET_MAX)
    link.forge = echo.calm = True  # a refusal is said once
    begin(channel)
    try:
        await echo.move(channel, lambda: False)
    except LinkError as error:
        if str(error) != "refused: wrong proof":
            raise
    say("a wrong proof was refused")
    link.forge = echo.calm = False
    await channel.disconnect()

    # A busy machine may lose the connection once more: then the session is resumed once more.
    for attempt in range(1, RECONNECTS_MAX + 1):
        try:
            channel, _ = await connect(device, 244)
            begin(channel)
            await echo.move(channel, lambda: echo.checked == arguments.bytes)
            break
        except (Lost, BaseBumbleError) as error:
            if attempt == RECONNECTS_MAX:
                raise
            say(f"lost again at byte {echo.checked}: {type(error).__name__} {error}")
            link.lost()
    if link.session is not session:
        raise LinkError("the session is another one")
    # The first was the one with the wrong proof.
    acknowledged, taken_up, received = link.resumes[1]
    say(f"resumed: {acknowledged} bytes were acknowledged, taken up at {taken_up}, from the peer at {received}; all {echo.checked} came back")
    if sent - taken_up > WINDOW * PACKET_MAX:
        raise LinkError("more than a window was sent twice")
    link.close()
    await echo.move(channel, lambda: link.state == "closed")
    await channel.disconnect()
    say("closed in order")
    return {
        "ok": True,
        "bytes": echo.checked,
        "resumed_at": {"ours": taken_up, "acknowledged_before": acknowledged, "peers": received},
        "sent_twice": sent - taken_up,
        "repeated_bytes": link.repeated_bytes,
        "faults": dict(echo.faults),
        "version": link.version,
        "seed": arguments.seed,
    }


async def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("hci")
    parser.add_argument("control")
    parser.add_argument("radio")
    parser.add_argument("--bytes", type=int, default=160_000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    arguments = parser.parse_args()
    say(f"Bumble as a central, seed {arguments.seed}")
    async with await open_transport(f"unix-client:{arguments.hci}") as transport:
        device = Device.with_hci("foreign", Address("F0:F1:F2:F3:F4:F5"), transport.source, transport.sink)
        await device.power_on()
        try:
            summary = await scenario(device, arguments)
        except (LinkError, Lost, BaseBumbleError, TimeoutError) as error:
            say(f"FAILED: {type(error).__name__} {error}")
            return 1
    print(f"metric: bytes sent twice {summary['sent_twice']} B")
    print(json.dumps(summary))
    return 0


STARTED = time.monotonic()
if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
