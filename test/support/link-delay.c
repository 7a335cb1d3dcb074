/*
 * A link with an exact delay between two network namespaces. Every IP packet that enters one end leaves the other after the
 * one-way delay, first in first out, none lost; nothing ends a TCP connection on the way, so that acknowledgements, Nagle and
 * slow start are those of a real path. It touches nothing but the two interfaces it makes, and they go with it.
 *
 *   link-delay NETNS_A NETNS_B        makes `delay0` in each and prints `ready`
 *
 * Commands on stdin, each answered by one line; at its end the program ends:
 *   delay US    sets the one-way delay in microseconds
 *   count       prints `DATA_A DATA_B FLIGHTS DROPPED LATE_US` since the last one: TCP segments with data that entered at A
 *               and at B, how often the direction of such segments turned (two flights are one round trip), packets
 *               dropped, and how late the latest packet left.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define SLOTS 16384
#define MTU 2048

struct packet {
	long long due; /* CLOCK_MONOTONIC, ns */
	int length;
	unsigned char bytes[MTU];
};

struct direction {
	int in, out;
	unsigned head, tail;
	struct packet *queue;
	unsigned long data;
};

static struct direction ways[2];
static long long delay_ns, late_ns;
static unsigned long flights, dropped;
static int last_way = -1;

static void fail(const char *what)
{
	fprintf(stderr, "link-delay: %s: %s\n", what, strerror(errno));
	exit(1);
}

static long long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int open_end(const char *namespace, int home)
{
	char path[256];
	struct ifreq request = { .ifr_flags = IFF_TUN | IFF_NO_PI };
	int ns, fd;

	snprintf(path, sizeof path, "/var/run/netns/%s", namespace);
	ns = open(path, O_RDONLY | O_CLOEXEC);
	if (ns < 0 || setns(ns, CLONE_NEWNET) < 0)
		fail(path);
	close(ns);
	fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		fail("/dev/net/tun");
	strcpy(request.ifr_name, "delay0");
	if (ioctl(fd, TUNSETIFF, &request) < 0)
		fail("TUNSETIFF");
	if (setns(home, CLONE_NEWNET) < 0)
		fail("the way back");
	return fd;
}

static int has_tcp_data(const unsigned char *p, int length)
{
	int header, total;

	if (length < 40 || p[0] >> 4 != 4 || p[9] != 6)
		return 0;
	header = (p[0] & 15) * 4;
	total = p[2] << 8 | p[3];
	if (header + 20 > length)
		return 0;
	return total > header + (p[header + 12] >> 4) * 4;
}

static void send_packet(struct direction *way, const struct packet *packet)
{
	if (write(way->out, packet->bytes, packet->length) < 0)
		dropped++;
}

static void take_in(int number)
{
	struct direction *way = &ways[number];

	for (;;) {
		static struct packet spare;
		int full = way->head - way->tail == SLOTS;
		struct packet *packet = full ? &spare : &way->queue[way->head % SLOTS];

		packet->length = read(way->in, packet->bytes, MTU);
		if (packet->length < 0) {
			if (errno != EAGAIN && errno != EINTR)
				fail("read");
			return;
		}
		if (has_tcp_data(packet->bytes, packet->length)) {
			way->data++;
			flights += number != last_way;
			last_way = number;
		}
		packet->due = now() + delay_ns;
		if (full)
			dropped++;
		else if (delay_ns == 0 && way->head == way->tail)
			send_packet(way, packet);
		else
			way->head++;
	}
}

static void let_out(struct direction *way)
{
	while (way->head != way->tail) {
		struct packet *packet = &way->queue[way->tail % SLOTS];
		long long late = now() - packet->due;

		if (late < 0)
			return;
		if (late > late_ns)
			late_ns = late;
		send_packet(way, packet);
		way->tail++;
	}
}

static void obey(char *line)
{
	long us;

	if (sscanf(line, "delay %ld", &us) == 1 && us >= 0) {
		delay_ns = us * 1000LL;
		puts("ok");
	} else if (strncmp(line, "count", 5) == 0) {
		printf("%lu %lu %lu %lu %lld\n", ways[0].data, ways[1].data, flights, dropped, late_ns / 1000);
		ways[0].data = ways[1].data = flights = dropped = 0;
		late_ns = 0;
		last_way = -1;
	} else
		puts("what?");
	fflush(stdout);
}

int main(int argc, char **argv)
{
	struct sched_param priority = { .sched_priority = 20 };
	struct pollfd polled[3] = { { .fd = 0, .events = POLLIN } };
	char line[128];
	int home;

	if (argc != 3) {
		fprintf(stderr, "usage: link-delay NETNS_A NETNS_B\n");
		return 2;
	}
	home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	for (int i = 0; i < 2; i++) {
		ways[i].in = ways[1 - i].out = polled[1 + i].fd = open_end(argv[1 + i], home);
		polled[1 + i].events = POLLIN;
		ways[i].queue = calloc(SLOTS, sizeof *ways[i].queue);
		if (!ways[i].queue)
			fail("memory");
	}
	/* Where neither is allowed the packets leave a little later; `count` tells. */
	prctl(PR_SET_TIMERSLACK, 1);
	sched_setscheduler(0, SCHED_FIFO, &priority);
	puts("ready");
	fflush(stdout);
	for (;;) {
		long long wait = 3600000000000LL;
		struct timespec timeout;

		for (int i = 0; i < 2; i++)
			if (ways[i].head != ways[i].tail) {
				long long left = ways[i].queue[ways[i].tail % SLOTS].due - now();
				if (left < wait)
					wait = left < 0 ? 0 : left;
			}
		timeout.tv_sec = wait / 1000000000;
		timeout.tv_nsec = wait % 1000000000;
		if (ppoll(polled, 3, &timeout, NULL) < 0 && errno != EINTR)
			fail("ppoll");
		for (int i = 0; i < 2; i++)
			let_out(&ways[i]);
		for (int i = 0; i < 2; i++)
			if (polled[1 + i].revents)
				take_in(i);
		if (polled[0].revents) {
			ssize_t n = read(0, line, sizeof line - 1);
			if (n <= 0)
				return 0;
			line[n] = 0;
			obey(line);
		}
	}
}
