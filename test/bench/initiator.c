/*
 * A raw initiator: READs and WRITEs to a LUN over libiscsi, without a file, so many at a time. What it reaches is the ceiling of
 * whatever puts a file on top. Data goes straight between the socket and memory that is allocated once.
 *
 *   initiator URL read|write sequential|random BLOCK_BYTES DEPTH SECONDS MOST_BYTES [SPAN_BYTES [SEED]]
 *
 * URL: iscsi://HOST:PORT/TARGET/LUN, or iser://. It ends after SECONDS or when MOST_BYTES have been moved (0: no such limit),
 * whichever comes first, and prints one line of JSON. Latency is from handing a command to libiscsi to its answer.
 */

#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

enum { LONGEST_TRANSFER = 16 << 20, DEEPEST = 1024 };

struct run;

/* One command at a time, and the memory that it reads into or writes from. */
struct lane {
	struct run *run;
	struct scsi_iovec memory;
	double started;
};

struct run {
	struct iscsi_context *iscsi;
	int lun;
	bool writes;
	bool random;
	uint64_t transfer;      /* bytes of a command */
	uint32_t block_length;
	uint64_t transfers;     /* how many places there are on the span of the LUN */
	uint64_t next;
	uint64_t state;         /* of the random numbers */
	double deadline;        /* seconds, as of now() */
	uint64_t most;          /* commands */
	uint64_t submitted;
	uint64_t completed;
	unsigned in_flight;
	float *latencies;       /* microseconds, `completed` of them */
	uint64_t latency_room;
};

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static double cpu_seconds(void)
{
	struct rusage usage;
	getrusage(RUSAGE_SELF, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	fputs("initiator: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
	exit(1);
}

/* xorshift64*: good enough to choose places by. */
static uint64_t random_number(struct run *run)
{
	run->state ^= run->state >> 12;
	run->state ^= run->state << 25;
	run->state ^= run->state >> 27;
	return run->state * 0x2545f4914f6cdd1dULL;
}

static void submit(struct lane *lane);

static void on_answer(struct iscsi_context *iscsi, int status, void *command_data, void *private_data)
{
	struct lane *lane = private_data;
	struct run *run = lane->run;
	struct scsi_task *task = command_data;

	if (status != SCSI_STATUS_GOOD)
		die("a command failed: status %d, %s", status, iscsi_get_error(iscsi));
	if (run->completed == run->latency_room) {
		run->latency_room *= 2;
		run->latencies = realloc(run->latencies, run->latency_room * sizeof(float));
		if (run->latencies == NULL) die("out of memory");
	}
	run->latencies[run->completed++] = (float)((now() - lane->started) * 1e6);
	run->in_flight--;
	scsi_free_scsi_task(task);
	submit(lane);
}

static void submit(struct lane *lane)
{
	struct run *run = lane->run;
	struct scsi_task *task;
	uint64_t place, lba;

	lane->started = now();
	if (run->submitted == run->most || lane->started >= run->deadline) return;
	place = run->random ? random_number(run) % run->transfers : run->next++ % run->transfers;
	lba = place * (run->transfer / run->block_length);
	if (run->writes)
		task = iscsi_write16_iov_task(run->iscsi, run->lun, lba, NULL, (uint32_t)run->transfer, (int)run->block_length,
					      0, 0, 0, 0, 0, on_answer, lane, &lane->memory, 1);
	else
		task = iscsi_read16_iov_task(run->iscsi, run->lun, lba, (uint32_t)run->transfer, (int)run->block_length,
					     0, 0, 0, 0, 0, on_answer, lane, &lane->memory, 1);
	if (task == NULL) die("a command could not be sent: %s", iscsi_get_error(run->iscsi));
	run->submitted++;
	run->in_flight++;
}

static int by_size(const void *one, const void *other)
{
	const float a = *(const float *)one, b = *(const float *)other;
	return (a > b) - (a < b);
}

static double percentile(const struct run *run, double share)
{
	uint64_t index = (uint64_t)(share * (double)run->completed);
	return run->latencies[index < run->completed ? index : run->completed - 1];
}

static uint64_t number(const char *text, const char *what)
{
	char *end;
	const uint64_t value = strtoull(text, &end, 10);
	if (*text == '\0' || *end != '\0') die("%s: not a number: %s", what, text);
	return value;
}

static void connect_to(struct run *run, const char *text)
{
	struct scsi_task *task;
	struct scsi_readcapacity16 *capacity;
	struct iscsi_url *url;
	char name[64];

	snprintf(name, sizeof name, "iqn.2026-01.io.iserfs.bench:initiator-%d", (int)getpid());
	run->iscsi = iscsi_create_context(getenv("INITIATOR_NAME") != NULL ? getenv("INITIATOR_NAME") : name);
	if (run->iscsi == NULL) die("out of memory");
	url = iscsi_parse_full_url(run->iscsi, text);
	if (url == NULL) die("%s", iscsi_get_error(run->iscsi));
	if (url->transport == ISER_TRANSPORT && iscsi_init_transport(run->iscsi, ISER_TRANSPORT) != 0)
		die("%s", iscsi_get_error(run->iscsi));
	iscsi_set_session_type(run->iscsi, ISCSI_SESSION_NORMAL);
	iscsi_set_header_digest(run->iscsi, ISCSI_HEADER_DIGEST_NONE);
	iscsi_set_noautoreconnect(run->iscsi, 1);
	if (iscsi_full_connect_sync(run->iscsi, url->portal, url->lun) != 0)
		die("%s: %s", text, iscsi_get_error(run->iscsi));
	run->lun = url->lun;
	iscsi_destroy_url(url);

	task = iscsi_readcapacity16_sync(run->iscsi, run->lun);
	if (task == NULL || task->status != SCSI_STATUS_GOOD) die("capacity: %s", iscsi_get_error(run->iscsi));
	capacity = scsi_datain_unmarshall(task);
	if (capacity == NULL) die("capacity: an answer that cannot be read");
	run->block_length = capacity->block_length;
	run->transfers = (capacity->returned_lba + 1) * capacity->block_length / run->transfer;
	scsi_free_scsi_task(task);
	if (run->transfer % run->block_length != 0) die("BLOCK_BYTES: not a multiple of %u", run->block_length);
	if (run->transfers == 0) die("the LUN is smaller than one command");
}

int main(int argc, char **argv)
{
	struct run run = { 0 };
	struct lane *lanes;
	double begun, ended, cpu_begun, sum = 0;
	uint64_t depth, seconds, most_bytes, span, place;

	if (argc < 8 || argc > 10) die("URL read|write sequential|random BLOCK_BYTES DEPTH SECONDS MOST_BYTES [SPAN_BYTES [SEED]]");
	run.writes = strcmp(argv[2], "write") == 0;
	run.random = strcmp(argv[3], "random") == 0;
	run.transfer = number(argv[4], "BLOCK_BYTES");
	depth = number(argv[5], "DEPTH");
	seconds = number(argv[6], "SECONDS");
	most_bytes = number(argv[7], "MOST_BYTES");
	span = argc > 8 ? number(argv[8], "SPAN_BYTES") : 0;
	run.state = (argc > 9 ? number(argv[9], "SEED") : 1) * 0x9e3779b97f4a7c15ULL | 1;
	if (run.transfer == 0 || run.transfer > LONGEST_TRANSFER) die("BLOCK_BYTES: 1 to %d", LONGEST_TRANSFER);
	if (depth == 0 || depth > DEEPEST) die("DEPTH: 1 to %d", DEEPEST);
	run.most = most_bytes == 0 ? UINT64_MAX : most_bytes / run.transfer;

	connect_to(&run, argv[1]);
	if (span != 0 && span / run.transfer < run.transfers) run.transfers = span / run.transfer;
	run.latency_room = 1 << 16;
	run.latencies = malloc(run.latency_room * sizeof(float));
	lanes = calloc(depth, sizeof *lanes);
	if (run.latencies == NULL || lanes == NULL) die("out of memory");
	for (place = 0; place < depth; place++) {
		lanes[place].run = &run;
		lanes[place].memory.iov_len = run.transfer;
		lanes[place].memory.iov_base = aligned_alloc(4096, (run.transfer + 4095) / 4096 * 4096);
		if (lanes[place].memory.iov_base == NULL) die("out of memory");
		memset(lanes[place].memory.iov_base, 0x5a, run.transfer);
	}

	cpu_begun = cpu_seconds();
	begun = now();
	run.deadline = begun + (double)seconds;
	for (place = 0; place < depth; place++) submit(&lanes[place]);
	while (run.in_flight > 0) {
		struct pollfd descriptor = { .fd = iscsi_get_fd(run.iscsi), .events = (short)iscsi_which_events(run.iscsi) };
		if (poll(&descriptor, 1, 30000) == 0) die("no answer for 30 s");
		if (iscsi_service(run.iscsi, descriptor.revents) < 0) die("%s", iscsi_get_error(run.iscsi));
	}
	ended = now();
	if (run.completed == 0) die("nothing was moved");

	for (place = 0; place < run.completed; place++) sum += run.latencies[place];
	qsort(run.latencies, run.completed, sizeof(float), by_size);
	printf("{\"bytes\":%llu,\"operations\":%llu,\"seconds\":%.6f,\"meanUs\":%.2f,\"p50Us\":%.2f,\"p99Us\":%.2f,\"cpuSeconds\":%.6f}\n",
	       (unsigned long long)(run.completed * run.transfer), (unsigned long long)run.completed, ended - begun,
	       sum / (double)run.completed, percentile(&run, 0.5), percentile(&run, 0.99), cpu_seconds() - cpu_begun);
	iscsi_logout_sync(run.iscsi);
	iscsi_destroy_context(run.iscsi);
	for (place = 0; place < depth; place++) free(lanes[place].memory.iov_base);
	free(lanes);
	free(run.latencies);
	return 0;
}
