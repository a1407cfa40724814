/* What a hostile card tries at the system call boundary. probe NAME [ARGUMENT] prints "NAME: ok" or "NAME: ERRNO". */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static long try_ptrace(const char *a)
{
	(void)a;
	pid_t child = fork();
	if (child == 0) {
		pause();
		_exit(0);
	}
	long result = ptrace(PTRACE_ATTACH, child, 0, 0);
	int saved = errno;
	kill(child, SIGKILL);
	waitpid(child, NULL, __WALL);
	errno = saved;
	return result;
}

static long try_process_vm_readv(const char *a)
{
	(void)a;
	char from[8] = "secret", to[8];
	struct iovec local = { to, sizeof to }, remote = { from, sizeof from };
	return process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
}

static long try_keyctl(const char *a)
{
	(void)a;
	return syscall(SYS_keyctl, 0 /* GET_KEYRING_ID */, -5 /* user session */, 1);
}

static long try_add_key(const char *a)
{
	(void)a;
	return syscall(SYS_add_key, "user", "anvil-probe", "x", 1, -2 /* process keyring */);
}

static long try_io_uring(const char *a)
{
	(void)a;
	char params[120] = { 0 };
	return syscall(SYS_io_uring_setup, 1, params);
}

static long try_bpf(const char *a)
{
	(void)a;
	char attr[128] = { 0 };
	return syscall(SYS_bpf, 0, attr, sizeof attr);
}

static long try_userfaultfd(const char *a)
{
	(void)a;
	return syscall(SYS_userfaultfd, 1 /* user mode only */);
}

static long try_perf(const char *a)
{
	(void)a;
	char attr[128] = { 0 };
	return syscall(SYS_perf_event_open, attr, 0, -1, -1, 0);
}

static long try_userns(const char *a)
{
	(void)a;
	return unshare(CLONE_NEWUSER);
}

static long try_clone_userns(const char *a)
{
	(void)a;
	long pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
	if (pid == 0)
		_exit(0);
	return pid;
}

static long try_clone3(const char *a)
{
	(void)a;
	unsigned long long args[11] = { CLONE_NEWUSER, 0, 0, 0, SIGCHLD };
	long pid = syscall(SYS_clone3, args, sizeof args);
	if (pid == 0)
		_exit(0);
	return pid;
}

static long try_setns(const char *a)
{
	(void)a;
	return setns(open("/proc/self/ns/uts", O_RDONLY), 0);
}

static long try_mount(const char *a)
{
	(void)a;
	return mount("none", "/tmp", "tmpfs", 0, "");
}

static long try_chroot(const char *a)
{
	(void)a;
	return chroot("/tmp");
}

static long try_mknod(const char *a)
{
	(void)a;
	return mknod("/tmp/device", S_IFCHR | 0666, makedev(0, 0));
}

static long try_mkfifo(const char *a)
{
	(void)a;
	return mkfifo("/tmp/fifo", 0600);
}

static long try_socket(const char *a)
{
	return socket(atoi(a), SOCK_STREAM, 0) >= 0 ? 0 : socket(atoi(a), SOCK_RAW, 0);
}

static long try_tiocsti(const char *a)
{
	(void)a;
	int fd = open("/dev/ptmx", O_RDWR | O_NOCTTY);
	return ioctl(fd, TIOCSTI, "x");
}

static long try_tioclinux(const char *a)
{
	(void)a;
	char subcode = 2;
	int fd = open("/dev/ptmx", O_RDWR | O_NOCTTY);
	return ioctl(fd, TIOCLINUX, &subcode);
}

static long try_personality(const char *a)
{
	return personality(strtoul(a, NULL, 0));
}

static long try_core(const char *a)
{
	(void)a;
	struct rlimit none = { 0, 0 }, now;
	setrlimit(RLIMIT_CORE, &none);
	syscall(SYS_prlimit64, 0, RLIMIT_CORE, &none, NULL);
	getrlimit(RLIMIT_CORE, &now);
	errno = EINVAL;
	return now.rlim_cur == 1 && now.rlim_max == 1 ? 0 : -1;
}

static long try_xattr(const char *a)
{
	return setxattr(a, "user.overlay.opaque", "y", 1, 0);
}

static long try_kill(const char *a)
{
	return kill(atoi(a), SIGKILL);
}

static long try_abstract(const char *a)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	strncpy(address.sun_path + 1, a, sizeof address.sun_path - 2);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	return connect(fd, (struct sockaddr *)&address, offsetof(struct sockaddr_un, sun_path) + 1 + strlen(a));
}

static long try_tcp(const char *a)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(atoi(a)) };
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&address, sizeof address);
}

static long try_udp(const char *a)
{
	/* 192.0.2.1 is a documentation address: without a route the kernel refuses at once */
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(53) };
	(void)a;
	address.sin_addr.s_addr = htonl(0xc0000201);
	return sendto(socket(AF_INET, SOCK_DGRAM, 0), "x", 1, 0, (struct sockaddr *)&address, sizeof address);
}

static long try_x32(const char *a)
{
	(void)a;
	return syscall(0x40000000 | SYS_getpid);
}

static long try_minus_one(const char *a)
{
	(void)a;
	return syscall(-1);
}

static long try_open_write(const char *a)
{
	return open(a, O_WRONLY);
}

static long try_open_read(const char *a)
{
	return open(a, O_RDONLY);
}

static long try_sparse(const char *a)
{
	signal(SIGXFSZ, SIG_IGN);
	return ftruncate(open(a, O_RDWR | O_CREAT, 0600), 1LL << 40);
}

static const struct {
	const char *name;
	long (*run)(const char *);
} attempts[] = {
	{ "ptrace", try_ptrace },	  { "process_vm_readv", try_process_vm_readv },
	{ "keyctl", try_keyctl },	  { "add_key", try_add_key },
	{ "io_uring", try_io_uring },	  { "bpf", try_bpf },
	{ "userfaultfd", try_userfaultfd }, { "perf", try_perf },
	{ "userns", try_userns },	  { "clone_userns", try_clone_userns },
	{ "clone3", try_clone3 },	  { "setns", try_setns },
	{ "mount", try_mount },		  { "chroot", try_chroot },
	{ "mknod", try_mknod },		  { "mkfifo", try_mkfifo },
	{ "socket", try_socket },	  { "tiocsti", try_tiocsti },
	{ "tioclinux", try_tioclinux },	  { "personality", try_personality },
	{ "core", try_core },		  { "xattr", try_xattr },
	{ "kill", try_kill },		  { "abstract", try_abstract },
	{ "tcp", try_tcp },		  { "udp", try_udp },
	{ "x32", try_x32 },		  { "minus_one", try_minus_one },
	{ "open_write", try_open_write }, { "open_read", try_open_read },
	{ "sparse", try_sparse },
};

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	for (size_t i = 0; i < sizeof attempts / sizeof *attempts; i++) {
		if (strcmp(attempts[i].name, argv[1]))
			continue;
		errno = 0;
		long result = attempts[i].run(argc > 2 ? argv[2] : "");
		printf("%s: %s\n", argv[1], result >= 0 ? "ok" : strerrorname_np(errno));
		return result < 0;
	}
	return 2;
}
