/*
 * One file in memory behind the kernel's FUSE: the floor, what a file costs that has nothing behind it. libfuse3's low-level API,
 * threads of its own with a channel each, requests of 1 MiB, replies straight from the file's memory, direct I/O in parallel.
 *
 *   memory-file MOUNTPOINT BYTES       serves MOUNTPOINT/image in the foreground until it is unmounted or gets SIGTERM
 */

#define FUSE_USE_VERSION 312

#include <errno.h>
#include <fuse3/fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { FILE_INODE = 2, LONGEST_REQUEST = 1 << 20 };

static const char file_name[] = "image";
static unsigned char *content;
static size_t content_size;

static void describe(fuse_ino_t inode, struct stat *attributes)
{
	memset(attributes, 0, sizeof *attributes);
	attributes->st_ino = inode;
	if (inode == FUSE_ROOT_ID) {
		attributes->st_mode = S_IFDIR | 0755;
		attributes->st_nlink = 2;
	} else {
		attributes->st_mode = S_IFREG | 0600;
		attributes->st_nlink = 1;
		attributes->st_size = (off_t)content_size;
	}
}

static void on_init(void *context, struct fuse_conn_info *connection)
{
	(void)context;
	connection->max_read = LONGEST_REQUEST;
	connection->max_write = LONGEST_REQUEST;
	connection->max_readahead = LONGEST_REQUEST;
	connection->max_background = 64;
	connection->congestion_threshold = 48;
	connection->want |= connection->capable & (FUSE_CAP_ASYNC_DIO | FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS);
	connection->want &= ~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
}

static void on_lookup(fuse_req_t request, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry = { .ino = FILE_INODE, .attr_timeout = 3600, .entry_timeout = 3600 };

	if (parent != FUSE_ROOT_ID || strcmp(name, file_name) != 0) {
		fuse_reply_err(request, ENOENT);
		return;
	}
	describe(FILE_INODE, &entry.attr);
	fuse_reply_entry(request, &entry);
}

static void on_getattr(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file)
{
	struct stat attributes;

	(void)file;
	describe(inode, &attributes);
	fuse_reply_attr(request, &attributes, 3600);
}

/* Truncation changes nothing, as with a LUN. */
static void on_setattr(fuse_req_t request, fuse_ino_t inode, struct stat *wanted, int which, struct fuse_file_info *file)
{
	(void)wanted;
	(void)which;
	on_getattr(request, inode, file);
}

static void on_open(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file)
{
	if (inode != FILE_INODE) {
		fuse_reply_err(request, EISDIR);
		return;
	}
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 15)
	file->parallel_direct_writes = 1;
#endif
	fuse_reply_open(request, file);
}

static void on_read(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset, struct fuse_file_info *file)
{
	const size_t start = (size_t)offset < content_size ? (size_t)offset : content_size;

	(void)inode;
	(void)file;
	fuse_reply_buf(request, (const char *)content + start, size < content_size - start ? size : content_size - start);
}

static void on_write(fuse_req_t request, fuse_ino_t inode, const char *data, size_t size, off_t offset,
		     struct fuse_file_info *file)
{
	(void)inode;
	(void)file;
	if ((size_t)offset >= content_size || size > content_size - (size_t)offset) {
		fuse_reply_err(request, ENOSPC);
		return;
	}
	memcpy(content + offset, data, size);
	fuse_reply_write(request, size);
}

static void on_fsync(fuse_req_t request, fuse_ino_t inode, int only_data, struct fuse_file_info *file)
{
	(void)inode;
	(void)only_data;
	(void)file;
	fuse_reply_err(request, 0);
}

static void on_flush(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file)
{
	on_fsync(request, inode, 0, file);
}

static const struct fuse_lowlevel_ops operations = {
	.init = on_init,
	.lookup = on_lookup,
	.getattr = on_getattr,
	.setattr = on_setattr,
	.open = on_open,
	.read = on_read,
	.write = on_write,
	.flush = on_flush,
	.fsync = on_fsync,
};

int main(int argc, char **argv)
{
	char *options[] = { argv[0], (char *)"-osubtype=memory-file,fsname=memory-file,max_read=1048576" };
	struct fuse_args arguments = FUSE_ARGS_INIT(2, options);
	struct fuse_loop_config *loop;
	struct fuse_session *session;
	int status = 1;

	if (argc != 3) {
		fprintf(stderr, "usage: %s MOUNTPOINT BYTES\n", argv[0]);
		return 2;
	}
	content_size = strtoull(argv[2], NULL, 10);
	content = mmap(NULL, content_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (content == MAP_FAILED) {
		perror("memory-file");
		return 1;
	}
	session = fuse_session_new(&arguments, &operations, sizeof operations, NULL);
	if (session == NULL) return 1;
	if (fuse_set_signal_handlers(session) == 0) {
		if (fuse_session_mount(session, argv[1]) == 0) {
			loop = fuse_loop_cfg_create();
			fuse_loop_cfg_set_clone_fd(loop, 1);
			status = fuse_session_loop_mt(session, loop) == 0 ? 0 : 1;
			fuse_loop_cfg_destroy(loop);
			fuse_session_unmount(session);
		}
		fuse_remove_signal_handlers(session);
	}
	fuse_session_destroy(session);
	fuse_opt_free_args(&arguments);
	return status;
}
