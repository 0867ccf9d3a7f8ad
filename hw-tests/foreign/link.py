"""The central's end of a link, written from firmware-notes/link.md alone: no byte of it was read off our own code.

Sans-IO: `handle` takes packets, `poll` gives packets and `deadline` tells when to poll again; times are seconds of any clock that only goes
forward. What the page does not ask of a peer is left out. In one file, as the page is one page. Run as a program it holds itself against the
page's worked example.
"""

import dataclasses
import re
import struct
import sys

KIND_HELLO, KIND_WELCOME, KIND_CONFIRM, KIND_REFUSE, KIND_CLOSE, KIND_CLOSE_ACK = range(1, 7)
VERSIONS = (1, 2)
SEQUENCES = 2048
WINDOW = 256
REORDER = 8
PATIENCE_FIRST, PATIENCE_MIN, PATIENCE_MAX = 0.5, 0.1, 8.0
REFUSALS = ("version", "session unknown", "wrong proof", "impossible number", "violation", "busy")


class LinkError(Exception):
    """The peer broke the protocol, refused, or fell silent."""


# --- postcard and SipHash ---------------------------------------------------------------------------------------------------------------


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        piece = self.data[self.at : self.at + count]
        if len(piece) != count:
            raise LinkError(f"a message is cut short: {self.data.hex(' ')}")
        self.at += count
        return piece

    def u8(self):
        return self.take(1)[0]

    def varint(self):
        number = shift = 0
        while True:
            byte = self.u8()
            number |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return number
            shift += 7


def siphash_2_4_128(key, data):
    mask = (1 << 64) - 1
    k0, k1 = struct.unpack("<QQ", key)
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D ^ 0xEE, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rotate(x, n):
        return (x << n | x >> (64 - n)) & mask

    def rounds(count):
        for _ in range(count):
            v[0] = (v[0] + v[1]) & mask
            v[1] = rotate(v[1], 13) ^ v[0]
            v[0] = rotate(v[0], 32)
            v[2] = (v[2] + v[3]) & mask
            v[3] = rotate(v[3], 16) ^ v[2]
            v[0] = (v[0] + v[3]) & mask
            v[3] = rotate(v[3], 21) ^ v[0]
            v[2] = (v[2] + v[1]) & mask
            v[1] = rotate(v[1], 17) ^ v[2]
            v[2] = rotate(v[2], 32)

    tail = len(data) % 8
    padded = data + bytes(7 - tail) + bytes([len(data) & 0xFF])
    for (word,) in struct.iter_unpack("<Q", padded):
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xEE
    rounds(4)
    first = v[0] ^ v[1] ^ v[2] ^ v[3]
    v[1] ^= 0xDD
    rounds(4)
    return struct.pack("<QQ", first, v[0] ^ v[1] ^ v[2] ^ v[3])


# --- control messages -------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Limits:
    packet_size: int
    buffer: int
    free: int
    send_buffer: int
    in_flight: int
    delay_ms: int

    def encode(self):
        parts = [varint(n) for n in (self.packet_size, self.buffer, self.free, self.send_buffer)]
        return b"".join(parts) + bytes([self.in_flight]) + varint(self.delay_ms)

    @staticmethod
    def decode(reader):
        sizes = [reader.varint() for _ in range(4)]
        return Limits(*sizes, reader.u8(), reader.varint())


def control_packets(kind, message, packet_size):
    """The whole message in one packet if it fits, else pieces of 16 bytes."""
    if len(message) + 4 <= packet_size:
        return [b"GW" + bytes([kind << 4 | 15, len(message)]) + message]
    pieces = range(0, len(message), 16)
    return [b"GW" + bytes([kind << 4 | at // 16, len(message)]) + message[at : at + 16] for at in pieces]


class Pieces:
    """Puts pieces of control messages together, in whatever order they come."""

    def __init__(self):
        self.pieces = {}

    def add(self, packet):
        """The kind and the message, once it is whole; None before that, and for a packet of a wrong length."""
        if len(packet) < 4:
            return None
        kind, piece, length = packet[2] >> 4, packet[2] & 15, packet[3]
        body = packet[4:]
        if piece == 15:
            return (kind, body) if len(body) == length else None
        if length > 64 or len(body) != min(16, length - 16 * piece):
            return None
        known = self.pieces.setdefault((kind, length), {})
        known[piece] = body
        if len(known) < (length + 15) // 16:
            return None
        del self.pieces[kind, length]
        return kind, b"".join(body for _, body in sorted(known.items()))


# --- the link ---------------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Packet:
    payload: bytes
    sent_at: float
    transmission: int
    repeated: bool = False
    state: str = "flying"  # or "lost", "arrived"


@dataclasses.dataclass
class Session:
    name: bytes
    token: bytes


class Link:
    """A session and the connection that carries it now."""

    def __init__(self, random, receive_buffer=16384, send_buffer=65536, delay_ms=40):
        self.random, self.buffer, self.send_buffer, self.delay_ms = random, receive_buffer, send_buffer, delay_ms
        self.session = None
        self.received = bytearray()  # the peer's stream, all of it
        self.taken = 0  # bytes of it that `read` gave
        self.acknowledged = 0  # bytes of our stream that have arrived there
        self.unsent = bytearray()  # our stream from there on
        self.sent_most = 0  # the furthest byte that was ever sent
        self.resumes = []  # for each resume: bytes acknowledged before, where the peer took it up, where we took up its stream
        self.repeated_bytes = 0
        self.state = "suspended"
        self.forge = False  # answer the next resume with a wrong proof
        self.versions = VERSIONS  # the oldest and the newest that the next HELLO offers
        self.closing = None

    # commands

    def connected(self, now, packet_size, nonce=None):
        """Begins a connection: the first packet that `poll` gives is HELLO."""
        self.nonce = nonce or self.random.randbytes(8)
        free = self.buffer - (len(self.received) - self.taken)
        self.limits = Limits(packet_size, self.buffer, free, self.send_buffer, 128, self.delay_ms)
        session = b"\0" if self.session is None else b"\1" + self.session.name
        self.hello = bytes(self.versions) + session + self.nonce + self.limits.encode() + varint(len(self.received)) + varint(0)
        self.state, self.pieces, self.packet_size = "greeting", Pieces(), packet_size
        self.peer = None
        self.smoothed = self.variance = None
        self.doubled = 1
        self.packets, self.oldest, self.next, self.transmissions, self.arrived_latest = {}, 0, 0, 0, -1
        self.cut_at = 0  # bytes of `unsent` that were cut into packets of this connection
        self.credit = 0
        self.expected, self.ahead = 0, {}
        self.unanswered, self.ack_at, self.asks_at, self.control_at = 0, None, None, now
        self.heard_at = now

    def lost(self):
        """The connection is gone; the session is kept."""
        if self.state not in ("closed", "failed"):
            self.state = "suspended"

    def write(self, data):
        self.unsent += data

    def read(self):
        """What has arrived since; only what was read makes room for more."""
        data = bytes(self.received[self.taken :])
        self.taken = len(self.received)
        return data

    def close(self):
        """Finished. What has arrived is acknowledged first."""
        self.closing = b"\0"
        if self.unanswered:
            self.ack_at = 0.0

    @property
    def written(self):
        return self.acknowledged + len(self.unsent)

    # packets from the peer

    def handle(self, now, packet):
        self.heard_at = now
        if packet[:2] == b"GW":
            message = self.pieces.add(packet)
            if message is not None:
                self.control(now, *message)
            return
        if self.state == "greeting":
            return  # the rest of a connection before
        first = packet[0]
        if first in (0x40, 0x41):
            self.acknowledgement(now, packet)
        elif first < 0x40 or first >= 0x80:
            self.data(now, packet)
        else:
            raise LinkError(f"unknown first byte {first:02x}")

    def control(self, now, kind, message):
        reader = Reader(message)
        if kind == KIND_WELCOME and self.state == "greeting":
            self.welcome(now, reader, message)
        elif kind == KIND_REFUSE:
            self.state = "suspended"
            reason = reader.u8()
            raise LinkError(f"refused: {REFUSALS[reason] if reason < len(REFUSALS) else reason}")
        elif kind == KIND_CLOSE:
            reason = reader.u8()
            self.state = "closed"
            raise LinkError(f"the peer closed, reason {reason}")
        elif kind == KIND_CLOSE_ACK and self.closing is not None:
            self.state = "closed"

    def welcome(self, now, reader, message):
        self.version = reader.u8()
        if not self.versions[0] <= self.version <= self.versions[1]:
            raise LinkError(f"version {self.version}, which was not offered")
        name, _nonce = reader.take(8), reader.take(8)
        self.peer = Limits.decode(reader)
        self.packet_size = min(self.packet_size, self.peer.packet_size)
        if reader.u8() == 0:
            if self.session is not None:
                raise LinkError("a new session where one was to be resumed")
            self.session = Session(name, reader.take(16))
            self.confirm = b"\0"
            start = 0
        else:
            start, proof = reader.varint(), reader.take(16)
            covered = self.hello + message[:-16]
            if self.session is None or proof != siphash_2_4_128(self.session.token, b"\2" + covered):
                raise LinkError("the peer is not the one of before")
            if not self.acknowledged <= start <= self.sent_most:
                raise LinkError(f"resume at {start}, between {self.acknowledged} and {self.sent_most} expected")
            self.resumes.append((self.acknowledged, start, len(self.received)))
            token = bytes(16) if self.forge else self.session.token
            self.confirm = b"\1" + siphash_2_4_128(token, b"\3" + covered)
            del self.unsent[: start - self.acknowledged]
            self.acknowledged = start
        self.credit = start + self.peer.free
        self.measure(now - self.hello_sent_at)
        self.state, self.control_at = "confirming", now

    def acknowledgement(self, now, packet):
        if len(packet) < 8 or len(packet) != 8 + packet[7] or packet[7] > 32:
            return  # damaged on the way
        asked, number, credit, _ = struct.unpack_from("<BHIB", packet)
        self.established()
        self.advance(now, number)
        grown = (credit - self.credit) % (1 << 32)
        if grown < 1 << 31:
            self.credit += grown
            self.asks_at = None
        for at in range(8 * packet[7]):
            if packet[8 + at // 8] >> at % 8 & 1:
                self.arrived(now, self.oldest + (number + 1 + at - self.oldest) % SEQUENCES)
        self.find_lost()
        if asked == 0x41:
            self.ack_at = now

    def data(self, now, packet):
        head = int.from_bytes(packet[:3], "big")
        kind, sequence, number = head >> 22, head >> 11 & 0x7FF, head & 0x7FF
        if kind == 0:
            payload = packet[3:]
            whole = len(packet) == self.packet_size
        else:
            payload = packet[4:]
            whole = len(packet) > 4 and len(payload) == (kind & 1) * 256 + packet[3] and len(packet) <= self.packet_size
        if not whole:
            return  # damaged on the way
        self.established()
        self.advance(now, number)
        self.find_lost()
        away = (sequence - self.expected) % SEQUENCES
        self.unanswered += 1
        if away >= SEQUENCES // 2:
            self.ack_at = now  # it came twice
            return
        if away >= WINDOW:
            raise LinkError(f"packet {away} ahead")
        if away in self.ahead_of_expected():
            self.ack_at = now
        self.ahead[self.expected + away] = payload
        gap = len(self.ahead) > 1 and away == 0
        while self.expected in self.ahead:
            self.received += self.ahead.pop(self.expected)
            self.expected += 1
        if self.unanswered >= (8 if self.ahead else 16) or gap:
            self.ack_at = now
        elif self.ack_at is None:
            self.ack_at = now + self.delay_ms / 1000

    def ahead_of_expected(self):
        return {sequence - self.expected for sequence in self.ahead}

    def established(self):
        if self.state == "confirming":
            self.state = "established"

    # what has arrived there

    def advance(self, now, number):
        away = (number - self.oldest) % SEQUENCES
        if away >= SEQUENCES // 2:
            return  # an old one that comes late
        if away > self.next - self.oldest:
            raise LinkError("an acknowledgement of what was not sent")
        for _ in range(away):
            self.arrived(now, self.oldest)
            packet = self.packets.pop(self.oldest)
            self.oldest += 1
            self.acknowledged += len(packet.payload)
            self.cut_at -= len(packet.payload)
            del self.unsent[: len(packet.payload)]
        if away:
            self.doubled = 1

    def arrived(self, now, sequence):
        packet = self.packets.get(sequence)
        if packet is None or packet.state == "arrived":
            return
        if not packet.repeated:
            # Of a packet that was repeated it is not known which transmission has arrived.
            self.measure(now - packet.sent_at)
            self.arrived_latest = max(self.arrived_latest, packet.transmission)
        packet.state = "arrived"

    def find_lost(self):
        for packet in self.packets.values():
            if packet.state == "flying" and self.arrived_latest - packet.transmission >= REORDER:
                packet.state = "lost"

    def measure(self, sample):
        if self.smoothed is None:
            self.smoothed, self.variance = sample, sample / 2
        else:
            self.variance += (abs(self.smoothed - sample) - self.variance) / 4
            self.smoothed += (sample - self.smoothed) / 8

    @property
    def patience(self):
        if self.smoothed is None:
            return PATIENCE_FIRST
        delay = self.peer.delay_ms / 1000 if self.peer else 0
        patience = self.smoothed + max(4 * self.variance, 0.01) + delay
        return min(max(patience, PATIENCE_MIN) * self.doubled, PATIENCE_MAX)

    # packets for the peer

    def poll(self, now):
        """The next packet to send, or None."""
        if self.state in ("suspended", "closed", "failed"):
            return None
        if self.queued():
            return self.queue.pop(0)
        if self.state in ("greeting", "confirming"):
            if now < self.control_at:
                # In a new session data may go at once: it counts as the CONFIRM.
                return self.poll_data(now) if self.state == "confirming" and self.confirm == b"\0" else None
            self.control_at = now + self.patience
            if self.state == "greeting":
                self.hello_sent_at = now
                self.queue = control_packets(KIND_HELLO, self.hello, self.packet_size)
            else:
                self.queue = control_packets(KIND_CONFIRM, self.confirm, self.packet_size)
            return self.queue.pop(0)
        return self.poll_data(now) or self.poll_acknowledgement(now) or self.poll_close(now)

    def queued(self):
        return getattr(self, "queue", [])

    def poll_data(self, now):
        flying = [packet for packet in self.packets.values() if packet.state == "flying"]
        if flying and now >= min(packet.sent_at for packet in flying) + self.patience:
            self.packets[self.oldest].state = "lost"
            self.doubled = min(self.doubled * 2, 256)
            if self.doubled == 256:
                raise LinkError("nothing was heard for too long")
            for packet in flying:
                packet.sent_at = now
        for sequence, packet in self.packets.items():
            if packet.state == "lost":
                packet.repeated, packet.state = True, "flying"
                self.repeated_bytes += len(packet.payload)
                return self.send(now, sequence, packet)
        room = self.packet_size - 3
        payload = bytes(self.unsent[self.cut_at : self.cut_at + room])
        if not payload or len(flying) >= self.peer.in_flight or self.next - self.oldest >= WINDOW:
            return None
        if self.acknowledged + (self.next - self.oldest) * room + len(payload) > self.credit:
            if not flying and self.asks_at is None:
                self.asks_at = now + self.patience
            return None
        packet = Packet(payload, now, 0)
        self.packets[self.next] = packet
        self.cut_at += len(payload)
        self.sent_most = max(self.sent_most, self.acknowledged + self.cut_at)
        self.next += 1
        return self.send(now, self.next - 1, packet)

    def send(self, now, sequence, packet):
        packet.sent_at, packet.transmission = now, self.transmissions
        self.transmissions += 1
        length = len(packet.payload)
        full = length == self.packet_size - 3
        kind = 0 if full else 2 + length // 256
        head = kind << 22 | sequence % SEQUENCES << 11 | self.expected % SEQUENCES
        return head.to_bytes(3, "big") + (b"" if full else bytes([length % 256])) + packet.payload

    def poll_acknowledgement(self, now):
        asks = self.asks_at is not None and now >= self.asks_at
        due = self.ack_at is not None and now >= self.ack_at
        if not asks and not due and now < self.heard_at + 5:
            return None
        if asks:
            self.asks_at = now + self.patience * 2
        self.heard_at = max(self.heard_at, now - 4)
        self.ack_at, self.unanswered = None, 0
        bitmap = bytearray()
        for away in self.ahead_of_expected():
            if away <= 8 * min(32, self.packet_size - 8):
                bitmap.extend(bytes(max(0, (away - 1) // 8 + 1 - len(bitmap))))
                bitmap[(away - 1) // 8] |= 1 << (away - 1) % 8
        credit = (self.taken + self.buffer) % (1 << 32)
        return struct.pack("<BHIB", 0x41 if asks else 0x40, self.expected % SEQUENCES, credit, len(bitmap)) + bitmap

    def poll_close(self, now):
        # From version 2 on CLOSE goes right behind the last data, before it is acknowledged.
        waits = self.unsent if self.version == 1 else self.cut_at < len(self.unsent)
        if self.closing is None or waits or now < self.control_at:
            return None
        self.control_at = now + self.patience
        self.queue = control_packets(KIND_CLOSE, self.closing + varint(self.written), self.packet_size)
        return self.queue.pop(0)

    def deadline(self, now):
        """When to poll again if nothing arrives."""
        times = [now + 1.0]
        if self.state in ("greeting", "confirming") or self.closing is not None and not self.unsent:
            times.append(self.control_at)
        times += [at for at in (self.ack_at, self.asks_at) if at is not None]
        times += [packet.sent_at + self.patience for packet in self.packets.values() if packet.state == "flying"]
        return min(times)


# --- the worked example of the page -----------------------------------------------------------------------------------------------------


def worked_example(page):
    """Replays the central's part of the example; every packet must be the page's."""
    text = page.split("## Worked example")[1]
    # In order: (True, packet) of the central, (False, packet) of the peripheral.
    lines = re.findall(r"^([CP])>[CP] ((?:[0-9a-f]{2} )*[0-9a-f]{2})(?: |$)", text, re.M)
    script = [(who == "C", bytes.fromhex(packet)) for who, packet in lines]
    link, now, size = Link(None, receive_buffer=4096, send_buffer=4096), 0.0, 244
    waiting = []
    for index, (ours, packet) in enumerate(script):
        if ours and packet[:2] == b"GW" and packet[2] >> 4 == KIND_HELLO and packet[2] & 15 in (0, 15):
            if index:
                link.lost()
                size = 20
            pieces = [p for mine, p in script[index : index + 3] if mine and p[2:3] and p[2] >> 4 == KIND_HELLO]
            hello = b"".join(piece[4:] for piece in pieces)
            link.connected(now, size, hello[11:19] if index else hello[3:11])
        if not ours:
            waiting.append(packet)
            continue
        for received in waiting:
            link.handle(now, received)
        waiting = []
        for written in (b"hello", b"a full packet and more"):
            if written[:17] in packet and not link.unsent:
                link.write(written)
        if packet[:3] == b"GW\x5f":
            link.close()
        said = link.poll(now)
        while said is None:
            now = link.deadline(now)
            said = link.poll(now)
        if said != packet:
            raise LinkError(f"line {index + 1} of the example: said {said.hex(' ')}, expected {packet.hex(' ')}")
    for received in waiting:
        link.handle(now, received)
    if link.state != "closed" or bytes(link.received) != b"world":
        raise LinkError(f"the example ends {link.state} with {bytes(link.received)!r}")
    return len(script)


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as notes:
        print(f"link.py: {worked_example(notes.read())} packets of the worked example, byte for byte")
