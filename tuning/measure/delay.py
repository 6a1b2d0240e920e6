"""A slow line between two namespaces, where the kernel has no netem: two TUN devices, and every packet waits MILLISECONDS.
delay.py NAMESPACE-A ADDRESS-A NAMESPACE-B ADDRESS-B MILLISECONDS; runs until it is killed."""
import collections, ctypes, fcntl, os, select, struct, subprocess, sys, time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def device(namespace, address, name):
    """Made inside its namespace, since a descriptor may be used from anywhere."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    assert libc.setns(there, CLONE_NEWNET) == 0
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    assert libc.setns(home, CLONE_NEWNET) == 0
    # Large packets: the line, not this program, is to be the limit.
    subprocess.check_call(["ip", "-n", namespace, "link", "set", name, "up", "mtu", "65000", "txqueuelen", "10000"])
    subprocess.check_call(["ip", "-n", namespace, "addr", "add", address, "dev", name])
    return tun


a = device(sys.argv[1], sys.argv[2], "slow")
b = device(sys.argv[3], sys.argv[4], "slow")
wait = float(sys.argv[5]) / 1000
other = {a: b, b: a}
waiting = collections.deque()
while True:
    now = time.monotonic()
    while waiting and waiting[0][0] <= now:
        _, to, packet = waiting.popleft()
        try:
            os.write(to, packet)
        except OSError:
            pass
    patience = max(0, waiting[0][0] - now) if waiting else 1
    for tun in select.select([a, b], [], [], patience)[0]:
        for _ in range(64):
            try:
                packet = os.read(tun, 65600)
            except BlockingIOError:
                break
            waiting.append((time.monotonic() + wait, other[tun], packet))
